-- A query that can be looked for among the running ones.
SELECT ${sleeps}
SETTINGS log_comment = ${mark}

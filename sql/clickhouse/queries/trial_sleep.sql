-- A query that can be looked for among the running ones.
SELECT sleep(${seconds})
SETTINGS log_comment = ${mark}

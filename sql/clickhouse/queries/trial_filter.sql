-- How ClickHouse would read a table: that it reads parts at all, and the filter that a row policy adds for this user.
SELECT ${label} AS name, explain
FROM (EXPLAIN actions = 1 SELECT * FROM ${table})
WHERE explain LIKE '%ReadFromMergeTree%' OR explain LIKE '%Row level filter column:%'

-- The columns of a table that an INSERT may name.
SELECT name
FROM system.columns
WHERE database = currentDatabase() AND table = {table:String} AND default_kind IN ('', 'DEFAULT')
ORDER BY position

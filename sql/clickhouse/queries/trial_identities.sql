-- Each of these tables as this server knows it, and whether a reader or worker has seen it before. A table that was
-- restored from a backup, or exchanged for another one, has another UUID.
SELECT name, concat('table ', name, ' ', toString(uuid)) AS identity, identity IN (SELECT proof FROM ${trial}) AS is_known
FROM system.tables
WHERE database = currentDatabase() AND has({tables:Array(String)}, name)

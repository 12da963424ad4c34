-- Records that this table is known under the name of another one, for which it may be exchanged.
INSERT INTO ${trial} (run, proof)
SELECT 'expect', concat('table ', {place:String}, ' ', toString(uuid))
FROM system.tables
WHERE database = currentDatabase() AND name = {table:String}

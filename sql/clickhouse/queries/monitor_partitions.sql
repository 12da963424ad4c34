-- Rows, parts and bytes of each partition, newest first.
-- The limit of parts is per table: with several tables, the highest count of any one is returned.
SELECT partition, sum(events), max(parts), sum(bytes), sum(uncompressed)
FROM (
    SELECT
        partition, sum(rows) AS events, count() AS parts, sum(bytes_on_disk) AS bytes,
        sum(data_uncompressed_bytes) AS uncompressed
    FROM system.parts
    WHERE database = currentDatabase() AND has({tables:Array(String)}, table) AND active
    GROUP BY partition, table
)
GROUP BY partition
ORDER BY partition DESC
SETTINGS log_comment = 'outhaul:exporter'

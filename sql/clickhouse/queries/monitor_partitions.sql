-- What each partition takes, newest first.
SELECT partition, sum(rows), count(), sum(bytes_on_disk), sum(data_uncompressed_bytes)
FROM system.parts
WHERE database = currentDatabase() AND table = {table:String} AND active
GROUP BY partition
ORDER BY partition DESC
SETTINGS log_comment = 'outhaul:exporter'

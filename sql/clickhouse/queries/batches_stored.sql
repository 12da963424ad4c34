-- The batches that have stored rows of a stream from a position on, or of one copy, and when the first row was stored.
SELECT cdc_batch, min(cdc_lsn), max(cdc_lsn), count(), toUnixTimestamp64Micro(min(cdc_ingested_at))
FROM ${table}
WHERE cdc_source = {source:String} AND ${which}
GROUP BY cdc_batch
ORDER BY min(cdc_lsn), cdc_batch

-- The batches that have stored rows of a stream from a position on, or of one copy.
SELECT cdc_batch, min(cdc_lsn), max(cdc_lsn), count()
FROM ${table}
WHERE cdc_source = {source:String} AND ${which}
GROUP BY cdc_batch
ORDER BY min(cdc_lsn), cdc_batch

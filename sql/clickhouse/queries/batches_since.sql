-- How many batches of all sources were stored since a moment, and how many seconds ago that was.
SELECT
    uniqExact(cdc_source, cdc_batch),
    dateDiff('second', fromUnixTimestamp64Micro({since_us:Int64}, 'UTC'), now64(6, 'UTC'))
FROM ${table}
WHERE cdc_ingested_at >= fromUnixTimestamp64Micro({since_us:Int64}, 'UTC')

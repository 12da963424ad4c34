-- Dead letters of one source, in the given order.
SELECT
    cdc_lsn, cdc_ordinal, ${row} AS row, reason, toUnixTimestamp64Micro(cdc_committed_at) AS committed_at_us,
    toUnixTimestamp64Micro(cdc_ingested_at) AS ingested_at_us, isNotNull(discarded_at) AS discarded
FROM ${dead_letters}
WHERE cdc_source = {source:String} AND ${where}
ORDER BY ${order}
LIMIT ${limit}

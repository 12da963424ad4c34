-- The stored positions from `from_lsn` on, as runs of consecutive ordinals within a transaction.
-- LSNs with cdc_lsn % 8 = 7 are those of rows copied from the outbox: no WAL record begins there.
SELECT cdc_lsn, min(cdc_ordinal) AS first, max(cdc_ordinal) AS last
FROM (
    SELECT cdc_lsn, cdc_ordinal, cdc_ordinal - row_number() OVER (PARTITION BY cdc_lsn ORDER BY cdc_ordinal) AS run
    FROM (
        SELECT DISTINCT cdc_lsn, cdc_ordinal FROM (
            SELECT cdc_lsn, cdc_ordinal FROM ${table} WHERE cdc_source = {source:String} AND cdc_lsn >= {from_lsn:UInt64} AND cdc_lsn % 8 != 7 ${of_shard}
            UNION ALL
            SELECT cdc_lsn, cdc_ordinal FROM ${dead_letters} WHERE cdc_source = {source:String} AND cdc_lsn >= {from_lsn:UInt64} AND cdc_lsn % 8 != 7 ${of_shard}
        )
    )
)
GROUP BY cdc_lsn, run
ORDER BY cdc_lsn, first

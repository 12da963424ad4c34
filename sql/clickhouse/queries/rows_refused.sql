-- The events of a batch that views have refused one by one, filled since or not.
SELECT DISTINCT view, cdc_lsn, cdc_ordinal
FROM ${view_gaps}
WHERE cdc_source = {source:String} AND cdc_batch = {batch:UInt64} AND cdc_lsn != 0
ORDER BY view, cdc_lsn, cdc_ordinal

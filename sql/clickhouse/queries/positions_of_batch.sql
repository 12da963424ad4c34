-- The positions of a stored batch.
SELECT cdc_lsn, cdc_ordinal
FROM ${table}
WHERE cdc_source = {source:String}
  AND cdc_batch = {batch:UInt64}
  AND cdc_lsn BETWEEN {first_lsn:UInt64} AND {last_lsn:UInt64}
ORDER BY cdc_lsn, cdc_ordinal

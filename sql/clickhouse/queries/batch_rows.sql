-- How many events of a batch are stored.
SELECT uniqExact(cdc_lsn, cdc_ordinal)
FROM ${table}
WHERE cdc_source = {source:String}
  AND cdc_batch = {batch:UInt64}
  AND cdc_lsn BETWEEN {first_lsn:UInt64} AND {last_lsn:UInt64}

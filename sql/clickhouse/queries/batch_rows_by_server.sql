-- How many rows of a batch each server has.
SELECT serverUUID(), hostName(), count()
FROM ${table}
WHERE cdc_source = {source:String}
  AND cdc_batch = {batch:UInt64}
  AND cdc_lsn BETWEEN {first_lsn:UInt64} AND {last_lsn:UInt64}
GROUP BY serverUUID(), hostName()

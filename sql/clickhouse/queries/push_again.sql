-- Sends the stored rows of a batch to the views of its table again, under the token of the batch: the table and the views
-- that have had the batch drop it.
INSERT INTO ${table} (${columns})
SELECT ${columns}
FROM ${table}
WHERE ${fence}
  AND cdc_source = {source:String}
  AND cdc_batch = {batch:UInt64}
  AND cdc_lsn BETWEEN {first_lsn:UInt64} AND {last_lsn:UInt64}
  ${conditions}
ORDER BY cdc_lsn, cdc_ordinal

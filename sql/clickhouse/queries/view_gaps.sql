-- What views lack of a source: batches, and single events.
SELECT view, cdc_batch, cdc_lsn, cdc_ordinal, any(first_lsn), any(last_lsn), max(rows), argMax(reason, noticed_at)
FROM ${view_gaps}
WHERE cdc_source = {source:String}
GROUP BY view, cdc_batch, cdc_lsn, cdc_ordinal
HAVING argMax(isNull(filled_at), noticed_at)
ORDER BY view, cdc_batch, cdc_lsn, cdc_ordinal
LIMIT {limit:UInt32}

-- What views lacked or lack of a source, newest state of each: a batch, or one event of it.
SELECT
    view, cdc_batch, cdc_lsn, cdc_ordinal, any(first_lsn), any(last_lsn), max(rows), argMax(reason, noticed_at),
    argMax(isNull(filled_at), noticed_at) AS is_open
FROM ${view_gaps}
WHERE cdc_source = {source:String} AND last_lsn >= {from_lsn:UInt64}
GROUP BY view, cdc_batch, cdc_lsn, cdc_ordinal
HAVING is_open OR NOT {only_open:Bool}
ORDER BY view, cdc_batch, cdc_lsn, cdc_ordinal
LIMIT {limit:UInt32}

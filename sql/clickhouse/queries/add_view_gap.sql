-- All views that lack the same events are noted in one statement: a batch that is noted is not sent to any view again.
INSERT INTO ${view_gaps} (cdc_source, view, cdc_batch, cdc_lsn, cdc_ordinal, first_lsn, last_lsn, rows, reason, filled_at)
SELECT
    {source:String}, view.1, {batch:UInt64}, {lsn:UInt64}, {ordinal:UInt64}, {first_lsn:UInt64}, {last_lsn:UInt64},
    {rows:UInt64}, view.2, if({filled:Bool}, now64(6, 'UTC'), NULL)
FROM (SELECT arrayJoin(arrayZip({views:Array(String)}, {reasons:Array(String)})) AS view)

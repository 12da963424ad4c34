INSERT INTO ${view_gaps} (cdc_source, view, cdc_batch, cdc_lsn, cdc_ordinal, first_lsn, last_lsn, rows, reason, filled_at)
SELECT
    {source:String}, {view:String}, {batch:UInt64}, {lsn:UInt64}, {ordinal:UInt64}, {first_lsn:UInt64},
    {last_lsn:UInt64}, {rows:UInt64}, {reason:String}, if({filled:Bool}, now64(6, 'UTC'), NULL)

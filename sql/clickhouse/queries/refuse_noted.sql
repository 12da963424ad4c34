-- Refuses to send a batch again if a view is noted to lack the whole batch: all others have it, and the reader fills that
-- view.
AND throwIf((
    SELECT count() FROM ${view_gaps}
    WHERE cdc_source = {source:String} AND cdc_batch = {batch:UInt64} AND cdc_lsn = 0
) > 0, 'outhaul: noted') = 0

-- Refuses the whole batch if a table that can hold its rows has one of its positions. A worker may have been frozen while
-- a second one stored the batch, and ClickHouse forgets tokens after a while, but keeps the rows.
AND throwIf((cdc_lsn, cdc_ordinal) IN (
${stored}
), 'outhaul: stored already') = 0

-- Leaves out the positions of a batch that are already stored, in every table that can hold its rows: ClickHouse
-- forgets tokens after a while, but keeps the rows. The first insert of a batch checks too, since its worker may have
-- been frozen while a second one stored the batch.
AND (cdc_lsn, cdc_ordinal) NOT IN (
${stored}
)

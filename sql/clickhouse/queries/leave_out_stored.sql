-- Leaves out the positions that are stored already.
AND (cdc_lsn, cdc_ordinal) NOT IN (
${stored}
)

-- Leaves out of a batch what is stored already, once for each table that may hold rows of it: a token is remembered for a
-- while, the rows for ever. Every sending asks, the first, too: its worker may have slept while a later one was stored.
AND (cdc_lsn, cdc_ordinal) NOT IN (
${stored}
)

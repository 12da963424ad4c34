-- Inserts a batch once. ClickHouse checks the fence when the statement begins: an insert of a reader that has been
-- replaced stores nothing, even if it arrives late. The order makes one block of the whole batch, whatever the pieces in
-- which it arrives: ClickHouse makes the token of a block from the number of its pieces, too.
INSERT INTO ${table} (${columns})
SELECT ${expressions}
FROM input(${structure})
WHERE ${fence}
${unless_stored}
ORDER BY cdc_lsn, cdc_ordinal
FORMAT ArrowStream

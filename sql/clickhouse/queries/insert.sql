-- Inserts a batch once. ClickHouse checks the fence when the statement begins: an insert of a reader that has been
-- replaced stores nothing, even if it arrives late.
INSERT INTO ${table} (${columns}, cdc_source)
SELECT ${expressions}, {source:String}
FROM input(${structure})
WHERE throwIf(
    (SELECT argMax(owner, (epoch, owner)) FROM ${epochs} WHERE source = {fence:String}) != {owner:String},
    'outhaul: a newer reader has taken over'
) = 0
${unless_stored}
FORMAT ArrowStream

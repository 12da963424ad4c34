throwIf(
    (SELECT argMax(owner, (epoch, owner)) FROM ${epochs} WHERE source = {fence:String}) != {owner:String},
    'outhaul: a newer reader has taken over'
) = 0
AND throwIf(
    (SELECT argMax(in_memory, (epoch, owner)) FROM ${epochs} WHERE source = {fence:String})
    AND (SELECT count() FROM ${owners} WHERE source = {fence:String} AND owner = {owner:String}) = 0,
    'outhaul: ClickHouse was restarted'
) = 0

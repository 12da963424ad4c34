-- Refuses an insert of an owner that is not the newest, and one of an epoch from before a restart of the server.
(
    SELECT throwIf(argMax(owner, (epoch, owner)) != {owner:String}, 'outhaul: a newer reader has taken over')
        OR throwIf(
            argMax(in_memory, (epoch, owner)) AND {owner:String} NOT IN (
                SELECT owner FROM ${owners} WHERE source = {fence:String}
            ),
            'outhaul: ClickHouse was restarted'
        )
    FROM ${epochs}
    WHERE source = {fence:String}
) = 0

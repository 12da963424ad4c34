-- Merges of the table, inserts of the whole server, the limit of parts, and when rows were last inserted: a part of
-- level 0 was not merged yet, and is listed for some minutes more when it was. The table may have a limit of its own.
SELECT
    (SELECT count() FROM system.merges WHERE database = currentDatabase() AND table = {table:String}) AS merges,
    (SELECT max(elapsed) FROM system.merges WHERE database = currentDatabase() AND table = {table:String}) AS merge_s,
    coalesce(
        (SELECT toUInt64OrNull(extract(any(engine_full), 'parts_to_throw_insert = (\\d+)')) FROM system.tables
         WHERE database = currentDatabase() AND name = {table:String}),
        (SELECT toUInt64(any(value)) FROM system.merge_tree_settings WHERE name = 'parts_to_throw_insert')
    ) AS parts_limit,
    (SELECT toUnixTimestamp(max(modification_time)) FROM system.parts
     WHERE database = currentDatabase() AND table = {table:String} AND level = 0) AS inserted_at,
    sumIf(value, event = 'InsertQuery') AS inserts,
    sumIf(value, event = 'InsertedRows') AS rows,
    sumIf(value, event = 'InsertQueryTimeMicroseconds') / 1e6 AS seconds,
    sumIf(value, event = 'DelayedInserts') AS delayed,
    sumIf(value, event = 'RejectedInserts') AS rejected
FROM system.events
SETTINGS log_comment = 'outhaul:exporter'

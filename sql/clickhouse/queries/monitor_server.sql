-- Merges of the tables, inserts of the whole server, the limit of parts, and when rows were last inserted. A part of
-- level 0 is an insert that is not merged yet; it stays listed for some minutes after its merge. A table may set its
-- own limit.
SELECT
    (SELECT count() FROM system.merges WHERE database = currentDatabase() AND has({tables:Array(String)}, table)) AS merges,
    (SELECT max(elapsed) FROM system.merges WHERE database = currentDatabase() AND has({tables:Array(String)}, table)) AS merge_s,
    (SELECT min(coalesce(
        toUInt64OrNull(extract(engine_full, 'parts_to_throw_insert = (\\d+)')),
        (SELECT toUInt64(any(value)) FROM system.merge_tree_settings WHERE name = 'parts_to_throw_insert')
     )) FROM system.tables
     WHERE database = currentDatabase() AND has({tables:Array(String)}, name)) AS parts_limit,
    (SELECT toUnixTimestamp(max(modification_time)) FROM system.parts
     WHERE database = currentDatabase() AND has({tables:Array(String)}, table) AND level = 0) AS inserted_at,
    sumIf(value, event = 'InsertQuery') AS inserts,
    sumIf(value, event = 'InsertedRows') AS rows,
    sumIf(value, event = 'InsertQueryTimeMicroseconds') / 1e6 AS seconds,
    sumIf(value, event = 'DelayedInserts') AS delayed,
    sumIf(value, event = 'RejectedInserts') AS rejected
FROM system.events
SETTINGS log_comment = 'outhaul:exporter'

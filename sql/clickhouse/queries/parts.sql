-- Active parts of the fullest partition, and the server's limits, which apply if the table sets no limits.
SELECT
    (SELECT max(parts) FROM (
        SELECT count() AS parts FROM system.parts
        WHERE database = currentDatabase() AND table = {table:String} AND active GROUP BY partition_id)),
    (SELECT toUInt64(any(value)) FROM system.merge_tree_settings WHERE name = 'parts_to_delay_insert'),
    (SELECT toUInt64(any(value)) FROM system.merge_tree_settings WHERE name = 'parts_to_throw_insert')

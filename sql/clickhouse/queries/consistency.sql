-- How many replicas a table has, and the consistency settings of outhaul's user.
SELECT
    (SELECT max(total_replicas) FROM system.replicas WHERE database = currentDatabase() AND table = {table:String}),
    (SELECT any(value) FROM system.settings WHERE name = 'insert_quorum'),
    (SELECT any(value) FROM system.settings WHERE name = 'insert_quorum_parallel'),
    (SELECT any(value) FROM system.settings WHERE name = 'select_sequential_consistency')

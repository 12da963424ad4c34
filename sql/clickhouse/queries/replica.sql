-- The database, the path in Keeper and the number of replicas of a replicated table.
SELECT currentDatabase(), zookeeper_path, total_replicas
FROM system.replicas
WHERE database = currentDatabase() AND table = {table:String}

-- The replicas of a table that a cluster reaches.
SELECT DISTINCT replica_name
FROM ${replicas}
WHERE zookeeper_path = {path:String}

-- On a cluster, one name for the events of all shards. A pipeline writes to the local table and queries only that; with
-- several shards, each shard has its own pipeline.
CREATE TABLE IF NOT EXISTS ${table_all}${on_cluster} AS ${table}
ENGINE = Distributed(${cluster}, currentDatabase(), ${table}, cityHash64(id));

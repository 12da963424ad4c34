-- On a cluster, one name for the events of all of its shards. The pipeline writes to the local table and asks it; where there
-- are several shards, each has a pipeline of its own.
CREATE TABLE IF NOT EXISTS ${table}_all${on_cluster} AS ${table}
ENGINE = Distributed(${cluster}, currentDatabase(), ${table}, cityHash64(id));

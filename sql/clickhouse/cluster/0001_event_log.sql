-- For a cluster of one shard, applied by hand in place of ../0001_event_log.sql; set ${cluster}, ${table}, ${context_type} and
-- ${deduplication_window}. The other files here are for its neighbours.
-- The pipeline writes to the local table and asks it; with several shards, give each a pipeline of its own.
CREATE TABLE IF NOT EXISTS ${table} ON CLUSTER ${cluster} (
    id               Int64 CODEC(Delta, ZSTD(1)),
    event_type       LowCardinality(String),
    event_date_time  DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    environment      LowCardinality(String),
    event_context    ${context_type} CODEC(ZSTD(1)),
    metadata_version Nullable(Int64),
    event_key        Nullable(String),
    cdc_source       LowCardinality(String),
    cdc_lsn          UInt64 CODEC(Delta, ZSTD(1)),
    cdc_ordinal      UInt64 CODEC(Delta, ZSTD(1)),
    cdc_committed_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    cdc_ingested_at  DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    INDEX cdc_position_minmax (cdc_lsn, cdc_ordinal) TYPE minmax GRANULARITY 1
)
ENGINE = ReplicatedReplacingMergeTree
PARTITION BY toYYYYMM(event_date_time)
ORDER BY (event_type, event_date_time, id)
SETTINGS replicated_deduplication_window = ${deduplication_window};

CREATE TABLE IF NOT EXISTS ${table}_all ON CLUSTER ${cluster} AS ${table}
ENGINE = Distributed(${cluster}, currentDatabase(), ${table}, cityHash64(id));

-- For a cluster, in place of ../0002_event_log_dead_letters.sql and ../0004_event_log_dead_letters_discarded.sql.
CREATE TABLE IF NOT EXISTS ${table}_dead_letters ON CLUSTER ${cluster} (
    row              String CODEC(ZSTD(1)),
    reason           String,
    cdc_source       LowCardinality(String),
    cdc_lsn          UInt64,
    cdc_ordinal      UInt64,
    cdc_committed_at DateTime64(6, 'UTC'),
    cdc_ingested_at  DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC'),
    discarded_at     Nullable(DateTime64(6, 'UTC')),
    INDEX cdc_position_minmax (cdc_lsn, cdc_ordinal) TYPE minmax GRANULARITY 1
)
ENGINE = ReplicatedReplacingMergeTree
PARTITION BY toYYYYMM(cdc_ingested_at)
ORDER BY (cdc_source, cdc_lsn, cdc_ordinal)
SETTINGS replicated_deduplication_window = ${deduplication_window};

-- Events that ClickHouse refused: each whole, as Postgres would print it, with its position and the reason.
CREATE TABLE IF NOT EXISTS ${dead_letters}${on_cluster} (
    row              String CODEC(ZSTD(1)),
    reason           String,
    cdc_source       LowCardinality(String),
    cdc_lsn          UInt64,
    cdc_ordinal      UInt64,
    cdc_committed_at DateTime64(6, 'UTC'),
    cdc_ingested_at  DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC'),
    INDEX cdc_position_minmax (cdc_lsn, cdc_ordinal) TYPE minmax GRANULARITY 1
)
ENGINE = ${replicated}MergeTree
PARTITION BY toYYYYMM(cdc_ingested_at)
ORDER BY (cdc_source, cdc_lsn, cdc_ordinal)
SETTINGS
    non_replicated_deduplication_window = ${deduplication_window},
    replicated_deduplication_window = ${deduplication_window},
    replicated_deduplication_window_seconds = ${deduplication_window_s};

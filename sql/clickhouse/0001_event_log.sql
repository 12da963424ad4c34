-- One row for each committed event. Queries need no FINAL, since rows are stored once. A merge of a MergeTree removes no
-- row. With the deduplication window ClickHouse remembers the tokens of past inserts, so a batch that is sent again is not
-- stored twice. Inserts and recovering readers find positions quickly by the minmax index.
CREATE TABLE IF NOT EXISTS ${table}${on_cluster} (
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
ENGINE = ${replicated}MergeTree
PARTITION BY toYYYYMM(event_date_time)
ORDER BY (event_type, event_date_time, id)
SETTINGS
    non_replicated_deduplication_window = ${deduplication_window},
    replicated_deduplication_window = ${deduplication_window},
    replicated_deduplication_window_seconds = ${deduplication_window_s};

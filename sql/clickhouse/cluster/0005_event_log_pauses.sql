-- For a cluster, in place of ../0005_event_log_pauses.sql.
CREATE TABLE IF NOT EXISTS ${table}_pauses ON CLUSTER ${cluster} (
    source    LowCardinality(String),
    number    UInt64,
    is_paused Bool,
    said_at   DateTime64(6, 'UTC'),
    until     Nullable(DateTime64(6, 'UTC')),
    by        String,
    reason    String
)
ENGINE = ReplicatedMergeTree
ORDER BY (source, number);

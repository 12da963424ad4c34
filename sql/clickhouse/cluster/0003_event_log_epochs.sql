-- For a cluster, in place of ../0003_event_log_epochs.sql. The fence: a replica that lags must not answer for it, so read
-- docs/high-availability.md about insert_quorum and select_sequential_consistency.
CREATE TABLE IF NOT EXISTS ${table}_epochs ON CLUSTER ${cluster} (
    source            LowCardinality(String),
    epoch             UInt64,
    owner             String,
    system_identifier String,
    timeline          UInt32,
    slot              String,
    confirmed_lsn     UInt64,
    started_at        DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = ReplicatedMergeTree
ORDER BY (source, epoch);

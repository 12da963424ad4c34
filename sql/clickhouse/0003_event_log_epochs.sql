-- One row each time a reader takes over a source. Only the owner in the newest row may insert (the fence). The system
-- identifier and timeline identify the history to which the positions in ${table} belong. Small: one row per
-- (re)start.
CREATE TABLE IF NOT EXISTS ${epochs}${on_cluster} (
    source            LowCardinality(String),
    epoch             UInt64,
    owner             String,
    system_identifier String,
    timeline          UInt32,
    slot              String,
    confirmed_lsn     UInt64,
    started_at        DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = ${replicated}MergeTree
ORDER BY (source, epoch);

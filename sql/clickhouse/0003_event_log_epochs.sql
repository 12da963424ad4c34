-- One row each time a reader takes over a source. The newest row is the only one allowed to insert (the fence), and the
-- system identifier and timeline say which history the positions in ${table} belong to. Small: one row a (re)start.
CREATE TABLE IF NOT EXISTS ${table}_epochs${on_cluster} (
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

-- What operators said about pausing a source; the row with the highest number counts. `until` is empty for a pause that
-- only `outhaul resume` ends. Small: one row a word.
CREATE TABLE IF NOT EXISTS ${table}_pauses${on_cluster} (
    source    LowCardinality(String),
    number    UInt64,
    is_paused Bool,
    said_at   DateTime64(6, 'UTC'),
    until     Nullable(DateTime64(6, 'UTC')),
    by        String,
    reason    String
)
ENGINE = ${replicated}MergeTree
ORDER BY (source, number);

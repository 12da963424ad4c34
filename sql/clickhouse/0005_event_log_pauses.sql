-- One row for each `outhaul pause` and `outhaul resume` of a source; the row with the highest number is valid. `until`
-- is NULL for a pause that only `outhaul resume` ends.
CREATE TABLE IF NOT EXISTS ${pauses}${on_cluster} (
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

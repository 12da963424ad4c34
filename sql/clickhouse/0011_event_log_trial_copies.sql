-- What the materialized view of the trials makes of their rows.
CREATE TABLE IF NOT EXISTS ${trial_copies}${on_cluster} (
    run    String,
    number UInt64
)
ENGINE = ${replicated}MergeTree
ORDER BY (run, number)
SETTINGS
    non_replicated_deduplication_window = ${deduplication_window},
    replicated_deduplication_window = ${deduplication_window},
    replicated_deduplication_window_seconds = ${deduplication_window_s};

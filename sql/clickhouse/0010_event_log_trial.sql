-- Rows of trials (sink/trial.py): before its first epoch, a reader inserts here twice under one token, and reads. A row
-- with a proof records that all trials have passed, for one server, user and definition of the tables. Small.
CREATE TABLE IF NOT EXISTS ${trial}${on_cluster} (
    run      String,
    number   UInt64,
    at       DateTime64(6, 'UTC'),
    proof    String,
    tried_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = ${replicated}MergeTree
ORDER BY (proof, run, number)
SETTINGS
    non_replicated_deduplication_window = ${deduplication_window},
    replicated_deduplication_window = ${deduplication_window},
    replicated_deduplication_window_seconds = ${deduplication_window_s};

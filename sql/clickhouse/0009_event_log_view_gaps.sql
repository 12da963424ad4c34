-- Events of ${table} that a materialized view lacks because it refused them: one row for an event, or for a whole batch
-- (cdc_lsn and cdc_ordinal 0). `filled_at` is set when the view has received them. The newest row of a key is valid.
CREATE TABLE IF NOT EXISTS ${view_gaps}${on_cluster} (
    cdc_source  LowCardinality(String),
    view        String,
    cdc_batch   UInt64,
    cdc_lsn     UInt64,
    cdc_ordinal UInt64,
    first_lsn   UInt64,
    last_lsn    UInt64,
    rows        UInt64,
    reason      String,
    noticed_at  DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC'),
    filled_at   Nullable(DateTime64(6, 'UTC'))
)
ENGINE = ${replicated}ReplacingMergeTree(noticed_at)
ORDER BY (cdc_source, view, cdc_batch, cdc_lsn, cdc_ordinal);

-- The batch in which a row was stored; 0 if a release stored it that did not number batches. ClickHouse's insert token is
-- made of it, so a batch can be pushed again to views that lack it (docs/adr/0017-a-view-receives-each-event-once.md).
ALTER TABLE ${table}${on_cluster} ADD COLUMN IF NOT EXISTS cdc_batch UInt64 CODEC(ZSTD(1));

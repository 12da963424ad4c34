-- Finds rows that were stored after a moment without reading the whole table; parts from before have no such index.
ALTER TABLE ${table}${on_cluster} ADD INDEX IF NOT EXISTS cdc_ingested_minmax (cdc_ingested_at) TYPE minmax;

-- How far these files have been applied here: the number of the newest one. `outhaul setup` of a release that ends before
-- it changes nothing (docs/upgrades.md). Always the last file.
ALTER TABLE ${table}_epochs${on_cluster} MODIFY COMMENT 'outhaul schema ${schema_number}';

-- The number of the newest of these files that is applied here. `outhaul setup` of a release with a lower number
-- changes nothing (docs/upgrades.md). Always the last file.
ALTER TABLE ${epochs}${on_cluster} MODIFY COMMENT 'outhaul schema ${schema_number}';

-- A user for readers and workers: all that they do, and no more. Not applied by `outhaul setup`, which takes more rights
-- (CREATE TABLE, ALTER) and may have another user: set the password and the database's name (here: logs), and apply it
-- as an administrator. With several outboxes, repeat the grants for the tables of each.
CREATE USER IF NOT EXISTS outhaul_pipeline IDENTIFIED BY '...' SETTINGS PROFILE 'default';
GRANT SELECT, INSERT ON logs.event_log TO outhaul_pipeline;
GRANT SELECT, INSERT ON logs.event_log_dead_letters TO outhaul_pipeline;
GRANT SELECT, INSERT ON logs.event_log_epochs TO outhaul_pipeline;
GRANT SELECT, INSERT ON logs.event_log_pauses TO outhaul_pipeline;
-- A new column of the outbox is added to the events; without, it stops the reader.
GRANT ALTER ADD COLUMN ON logs.event_log TO outhaul_pipeline;
-- `outhaul dlq retry` and `discard`: a letter leaves, gets a new reason, or loses its values.
GRANT ALTER UPDATE, ALTER DELETE ON logs.event_log_dead_letters TO outhaul_pipeline;
-- A reader that takes over waits for the inserts that it sees here; without, for as long as any may take.
GRANT SELECT ON system.processes TO outhaul_pipeline;
GRANT SELECT ON system.tables TO outhaul_pipeline;
GRANT SELECT ON system.columns TO outhaul_pipeline;
GRANT SELECT ON system.parts TO outhaul_pipeline;
GRANT SELECT ON system.merge_tree_settings TO outhaul_pipeline;

-- A user for readers and workers, with exactly the rights that they need. `outhaul setup` does not apply this file; it
-- needs more rights (CREATE TABLE, ALTER) and can use another user. Set the password and the database's name (here:
-- logs), and apply it as an administrator. With several outboxes, repeat the grants for the tables of each.
CREATE USER IF NOT EXISTS outhaul_pipeline IDENTIFIED BY '...' SETTINGS PROFILE 'default';
GRANT SELECT, INSERT ON logs.event_log TO outhaul_pipeline;
GRANT SELECT, INSERT ON logs.event_log_dead_letters TO outhaul_pipeline;
GRANT SELECT, INSERT ON logs.event_log_view_gaps TO outhaul_pipeline;
GRANT SELECT, INSERT ON logs.event_log_epochs TO outhaul_pipeline;
GRANT SELECT, INSERT ON logs.event_log_owners TO outhaul_pipeline;
GRANT SELECT, INSERT ON logs.event_log_pauses TO outhaul_pipeline;
-- Tried by each reader and worker: whether ClickHouse stores a batch once, and finds it again.
GRANT SELECT, INSERT ON logs.event_log_trial TO outhaul_pipeline;
GRANT SELECT, INSERT ON logs.event_log_trial_copies TO outhaul_pipeline;
GRANT SELECT ON logs.event_log_trial_view TO outhaul_pipeline;
-- Adds new columns of the outbox to the event table; without this right, a new column stops the reader.
GRANT ALTER ADD COLUMN ON logs.event_log TO outhaul_pipeline;
-- `outhaul dlq retry` and `discard`: delete a letter, give it a new reason, or clear its values.
GRANT ALTER UPDATE, ALTER DELETE ON logs.event_log_dead_letters TO outhaul_pipeline;
-- A reader that takes over waits for the inserts listed here; without this right, for the longest time of an insert.
GRANT SELECT ON system.processes TO outhaul_pipeline;
-- A materialized view on the event table is checked if this user can see it and its target; repeat this for databases
-- of views and targets. It allows to see names and definitions, and no contents.
GRANT SHOW TABLES ON logs.* TO outhaul_pipeline;
GRANT SELECT ON system.tables TO outhaul_pipeline;
GRANT SELECT ON system.columns TO outhaul_pipeline;
GRANT SELECT ON system.parts TO outhaul_pipeline;
GRANT SELECT ON system.merge_tree_settings TO outhaul_pipeline;
-- Row policies that hide rows are found by this right before the tables have rows; without it, as soon as they have.
GRANT SHOW ROW POLICIES ON *.* TO outhaul_pipeline;
-- For replicated tables and ClickHouse Cloud: the reader asks every server that has a replica. If the cluster's
-- definition in remote_servers names a user, that user needs these and the rights to read above.
GRANT REMOTE, CREATE TEMPORARY TABLE ON *.* TO outhaul_pipeline;
GRANT SELECT ON system.clusters TO outhaul_pipeline;
GRANT SELECT ON system.replicas TO outhaul_pipeline;
GRANT SELECT ON system.zookeeper_connection TO outhaul_pipeline;

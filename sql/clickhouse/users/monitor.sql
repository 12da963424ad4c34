-- A user for `outhaul exporter`. It can read figures, ids and positions, but no contents of events. `outhaul setup`
-- does not apply this file: set the password and the database's name (here: logs), and apply it as an administrator.
-- The audit compares ids, so it needs no other columns.
CREATE USER IF NOT EXISTS outhaul_monitor IDENTIFIED BY '...' SETTINGS PROFILE 'default';
GRANT SELECT(id, event_date_time, cdc_source, cdc_lsn, cdc_ordinal) ON logs.event_log TO outhaul_monitor;
GRANT SELECT ON logs.event_log_view_gaps TO outhaul_monitor;
GRANT SELECT(row, cdc_source, discarded_at) ON logs.event_log_dead_letters TO outhaul_monitor;
GRANT SELECT ON system.parts TO outhaul_monitor;
GRANT SELECT ON system.columns TO outhaul_monitor;
GRANT SELECT ON system.tables TO outhaul_monitor;
GRANT SELECT ON system.merges TO outhaul_monitor;
GRANT SELECT ON system.events TO outhaul_monitor;
GRANT SELECT ON system.merge_tree_settings TO outhaul_monitor;
GRANT SELECT ON system.query_log TO outhaul_monitor;

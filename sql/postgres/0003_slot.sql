-- The slot keeps WAL from here on until ClickHouse has stored it. It must come after the publication: Postgres decodes
-- with the catalogue as it was at each change, and a publication created later is not there yet.
-- Where outhaul streams from a standby, this is for the standby; it waits there until somebody calls
-- pg_log_standby_snapshot() on the primary, perhaps more than once.
-- Postgres 17 and later: the slot follows a failover to a synchronised standby.
DO $$do$$
BEGIN
    IF EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '${slot}') THEN
        RETURN;
    END IF;
    IF current_setting('server_version_num')::int >= 170000 AND NOT pg_is_in_recovery() THEN
        PERFORM pg_create_logical_replication_slot('${slot}', 'pgoutput', temporary => false, twophase => false, failover => true);
    ELSE
        PERFORM pg_create_logical_replication_slot('${slot}', 'pgoutput');
    END IF;
END
$$do$$;

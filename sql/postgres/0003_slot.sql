-- The slot keeps WAL from its creation on until ClickHouse has stored the events. Create it after the publication:
-- Postgres decodes each change with the catalogue of that time, in which a later publication does not exist.
-- If outhaul streams from a standby, run this on the standby. It waits until you call pg_log_standby_snapshot() on the
-- primary, perhaps more than once.
-- Postgres 17 and later: the slot survives a failover to a synchronised standby.
DO $$do${unlike}$$
BEGIN
    IF EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = ${slot_literal}) THEN
        RETURN;
    END IF;
    IF current_setting('server_version_num')::int >= 170000 AND NOT pg_is_in_recovery() THEN
        PERFORM pg_create_logical_replication_slot(${slot_literal}, 'pgoutput', temporary => false, twophase => false, failover => true);
    ELSE
        PERFORM pg_create_logical_replication_slot(${slot_literal}, 'pgoutput');
    END IF;
END
$$do${unlike}$$;

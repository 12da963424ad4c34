-- Three group roles without login: one for apps that write events, one for the reader, and one for the exporter, which
-- may read only ids and times.
-- REPLICATION is a role attribute and is not inherited, so give it to the reader's own login. (A provider may have another
-- way: the first lines of `outhaul setup --print-sql` name it.)
--     ALTER ROLE your_reader REPLICATION;  GRANT outhaul_reader TO your_reader;
--     GRANT outhaul_app TO your_app;  GRANT outhaul_auditor TO your_exporter;
-- `outhaul prune` needs more rights than the reader:  GRANT SELECT, DELETE, UPDATE (event_type) ON your_outbox TO your_pruner;
DO $$do${unlike}$$
DECLARE
    sequence text := pg_get_serial_sequence(${table_literal}, 'id');
    schema oid := (SELECT relnamespace FROM pg_class WHERE oid = ${table_literal}::regclass);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'outhaul_app') THEN
        CREATE ROLE outhaul_app NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'outhaul_reader') THEN
        CREATE ROLE outhaul_reader NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'outhaul_auditor') THEN
        CREATE ROLE outhaul_auditor NOLOGIN;
    END IF;
    GRANT INSERT ON ${table} TO outhaul_app;
    GRANT SELECT ON ${table} TO outhaul_reader;
    -- ON CONFLICT (event_key) reads this column, and no other.
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = ${table_literal}::regclass AND attname = 'event_key' AND NOT attisdropped) THEN
        GRANT SELECT (event_key) ON ${table} TO outhaul_app;
    END IF;
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = ${table_literal}::regclass AND attname = 'event_date_time' AND NOT attisdropped) THEN
        GRANT SELECT (id, event_date_time) ON ${table} TO outhaul_auditor;
    END IF;
    IF sequence IS NOT NULL THEN
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO outhaul_app', sequence);
    END IF;
    -- PUBLIC has USAGE on the schema `public`, but not on other schemas.
    IF EXISTS (
        SELECT FROM unnest(ARRAY['outhaul_app', 'outhaul_reader', 'outhaul_auditor']) AS name
        WHERE NOT has_schema_privilege(name, schema, 'USAGE')
    ) THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO outhaul_app, outhaul_reader, outhaul_auditor', schema::regnamespace);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'outhaul: no right to create roles or to grant; apply 0004_roles.sql as a role that may';
END
$$do${unlike}$$;

-- A function for apps that prefer a call to an INSERT, and a trigger for tables where every change is an event:
--     SELECT outhaul_emit('user_created', '{"id": 1}', 'production');
--     CREATE TRIGGER users_events AFTER INSERT OR UPDATE OR DELETE ON users
--         FOR EACH ROW EXECUTE FUNCTION outhaul_row_event('production', 'password_hash');
-- Both write with the caller's rights, which must include those of outhaul_app, and in the caller's transaction.
-- Functions of these names that write to another table are not changed: two pipelines may share a schema.
DO $$do${unlike}$$
DECLARE
    -- Schema and table as format() quotes them: the text does not depend on the role's search_path.
    ours constant text := 'outhaul: events go to ' || (
        SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = ${table_literal}::regclass
    );
    theirs text := (
        SELECT obj_description(oid, 'pg_proc') FROM pg_proc
        WHERE proname = 'outhaul_emit' AND pronamespace = ${schema_literal}::regnamespace
        ORDER BY obj_description(oid, 'pg_proc') = ours LIMIT 1
    );
BEGIN
    IF theirs IS DISTINCT FROM ours AND to_regproc(${schema_literal} || '.outhaul_emit') IS NOT NULL THEN
        RAISE NOTICE 'outhaul: %.outhaul_emit() is there already (%) and is left as it is', ${schema_literal}, coalesce(theirs, 'not ours');
        RETURN;
    END IF;

    -- Returns whether the event is new: a duplicate key is ignored.
    EXECUTE $$ddl${unlike}$$
        CREATE OR REPLACE FUNCTION ${schema}.outhaul_emit(
            event_type text, event_context jsonb, environment text,
            event_date_time timestamptz DEFAULT now(), metadata_version bigint DEFAULT 1, event_key text DEFAULT NULL
        ) RETURNS boolean LANGUAGE plpgsql AS $$body${unlike}$$
        #variable_conflict use_column
        BEGIN
            -- An outbox that outhaul did not create may have no column event_key.
            IF outhaul_emit.event_key IS NULL THEN
                INSERT INTO ${table} (event_type, event_date_time, environment, event_context, metadata_version)
                VALUES (event_type, event_date_time, environment, event_context, metadata_version);
            ELSE
                INSERT INTO ${table} (event_type, event_date_time, environment, event_context, metadata_version, event_key)
                VALUES (event_type, event_date_time, environment, event_context, metadata_version, outhaul_emit.event_key)
                ON CONFLICT (event_key) DO NOTHING;
            END IF;
            RETURN FOUND;
        END
        $$body${unlike}$$
    $$ddl${unlike}$$;
    EXECUTE format('COMMENT ON FUNCTION %s.outhaul_emit IS %L', ${schema_literal}, ours);

    -- For a table `users`: users_inserted, users_updated, users_deleted, with the old and the new row. The trigger's
    -- arguments after the environment are columns to leave out.
    EXECUTE $$ddl${unlike}$$
        CREATE OR REPLACE FUNCTION ${schema}.outhaul_row_event() RETURNS trigger LANGUAGE plpgsql AS $$body${unlike}$$
        DECLARE
            verb text := CASE TG_OP WHEN 'INSERT' THEN 'inserted' WHEN 'UPDATE' THEN 'updated' ELSE 'deleted' END;
            secret text[] := TG_ARGV[1:];
            context jsonb := '{}';
        BEGIN
            IF TG_NARGS = 0 OR TG_LEVEL != 'ROW' THEN
                RAISE EXCEPTION 'outhaul: trigger % must say FOR EACH ROW EXECUTE FUNCTION outhaul_row_event(''<environment>'')', TG_NAME;
            END IF;
            IF TG_OP != 'INSERT' THEN
                context := context || jsonb_build_object('old', to_jsonb(OLD) - secret);
            END IF;
            IF TG_OP != 'DELETE' THEN
                context := context || jsonb_build_object('new', to_jsonb(NEW) - secret);
            END IF;
            PERFORM ${schema}.outhaul_emit(TG_TABLE_NAME || '_' || verb, context, TG_ARGV[0]);
            RETURN NULL;
        END
        $$body${unlike}$$
    $$ddl${unlike}$$;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'outhaul: no right to create functions; apply 0005_emit.sql as a role that may, or leave it';
END
$$do${unlike}$$;

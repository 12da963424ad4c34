-- The publication of the reader: inserts only, through the root of a partitioned outbox.
-- UPDATE, DELETE and TRUNCATE of the outbox are not replicated to ClickHouse.
DO $$do${unlike}$$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = ${publication_literal}) THEN
        CREATE PUBLICATION ${publication} FOR TABLE ${table}${row_filter}
            WITH (publish = 'insert', publish_via_partition_root = true);
    ELSIF NOT EXISTS (
        SELECT FROM pg_publication_tables
        JOIN pg_namespace ON nspname = schemaname JOIN pg_class ON relname = tablename AND relnamespace = pg_namespace.oid
        WHERE pubname = ${publication_literal} AND pg_class.oid = ${table_literal}::regclass
    ) THEN
        ALTER PUBLICATION ${publication} ADD TABLE ${table}${row_filter};
    END IF;
END
$$do${unlike}$$;

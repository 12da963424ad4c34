-- The number of the newest of these files that is applied here. `outhaul setup` of a release with a lower number
-- changes nothing (docs/upgrades.md). Always the last file. A comment that you set yourself is not changed.
DO $$do${unlike}$$
BEGIN
    IF coalesce(
        (SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = ${publication_literal}), 'outhaul schema 0'
    ) ~ '^outhaul schema \d+$$' THEN
        COMMENT ON PUBLICATION ${publication} IS 'outhaul schema ${schema_number}';
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'outhaul: not the owner of the publication; apply 9999_schema_number.sql as its owner';
END
$$do${unlike}$$;

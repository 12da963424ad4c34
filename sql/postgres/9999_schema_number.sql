-- How far these files have been applied here: the number of the newest one. `outhaul setup` of a release that ends before
-- it changes nothing (docs/upgrades.md). Always the last file; a comment of your own is left as it is.
DO $$do$$
BEGIN
    IF coalesce(
        (SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = '${publication}'), 'outhaul schema 0'
    ) ~ '^outhaul schema \d+$$' THEN
        COMMENT ON PUBLICATION ${publication} IS 'outhaul schema ${schema_number}';
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'outhaul: not the owner of the publication; apply 9999_schema_number.sql as its owner';
END
$$do$$;

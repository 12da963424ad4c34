-- How ClickHouse describes some tables, and the names of the materialized views that get what is inserted into each. A
-- table that this user may not see has no row, but its name is in the list of the table that it reads.
-- `databases` and `tables` bound the search; the pairs of a name and its database are compared by the caller.
SELECT
    database, name, toString(uuid), engine, engine_full, partition_key, sorting_key, create_table_query, as_select,
    arrayZip(dependencies_database, dependencies_table)
FROM system.tables
WHERE if({databases:Array(String)} = [], database = currentDatabase(), database IN {databases:Array(String)})
    AND name IN {tables:Array(String)}

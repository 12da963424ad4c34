-- What a proof holds for: the version of the server, the user, the definitions of the tables, and the settings that
-- differ from ClickHouse's defaults. Those of HTTP are the client's own.
SELECT
    version(),
    currentUser(),
    (
        SELECT groupArray((name, create_table_query))
        FROM (
            SELECT name, create_table_query
            FROM system.tables
            WHERE database = currentDatabase() AND has({tables:Array(String)}, name)
            ORDER BY name
        )
    ),
    (
        SELECT groupArray((name, value))
        FROM (SELECT name, value FROM system.settings WHERE changed AND name NOT LIKE '%http%' ORDER BY name)
    )

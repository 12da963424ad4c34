-- Another source that has rows in a table or, if the table is the first of its pipeline, has a reader that writes to it.
SELECT name
FROM (
    SELECT source AS name
    FROM ${epochs}
    WHERE {is_first:Bool} AND source != {source:String} AND NOT startsWith(source, concat({source:String}, '/'))
    LIMIT 1
    UNION ALL
    SELECT cdc_source AS name FROM ${table} WHERE cdc_source != {source:String} LIMIT 1
)
LIMIT 1

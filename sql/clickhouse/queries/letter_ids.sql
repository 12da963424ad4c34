-- Ids of the dead letters.
SELECT DISTINCT toInt64OrNull(JSONExtractString(row, 'id')) AS number
FROM ${dead_letters}
WHERE cdc_source = {source:String} AND number IS NOT NULL
ORDER BY number

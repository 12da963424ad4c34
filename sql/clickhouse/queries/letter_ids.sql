-- Ids and times of the dead letters. Letters that an older release discarded have lost their time.
SELECT DISTINCT
    toInt64OrNull(extract(row, '"id": ?"?(-?[0-9]+)')) AS number,
    extract(row, '"event_date_time": ?"([^"]*)"') AS time,
    position(row, '"event_date_time":') > 0 AS has_time
FROM ${dead_letters}
WHERE cdc_source = {source:String} AND number IS NOT NULL

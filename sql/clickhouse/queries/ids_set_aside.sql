-- Ids and times of the dead letters. Discarded ones are included, since an operator chose to discard them; those that an
-- older release discarded have lost their time.
SELECT DISTINCT
    toInt64OrNull(extract(row, '"id": ?"?(-?[0-9]+)')) AS id,
    extract(row, '"event_date_time": ?"([^"]*)"') AS time,
    position(row, '"event_date_time":') > 0 AS has_time
FROM ${dead_letters}
WHERE cdc_source = {source:String} AND ${ids}

-- Ids of the dead letters. Discarded ones are included, since an operator chose to discard them.
SELECT DISTINCT toInt64OrNull(extract(row, '"id": ?"?(-?[0-9]+)')) AS id
FROM ${dead_letters}
WHERE cdc_source = {source:String} AND ${ids}

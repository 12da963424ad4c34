-- Ids of events among the dead letters, discarded ones, too: those were given up knowingly.
SELECT DISTINCT toInt64OrNull(extract(row, '"id": ?"?(-?[0-9]+)')) AS id
FROM ${table}_dead_letters
WHERE cdc_source = {source:String} AND ${ids}

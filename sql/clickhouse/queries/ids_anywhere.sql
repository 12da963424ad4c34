-- The ids in a range that any replica has.
SELECT DISTINCT toInt64(id) AS number
FROM ${table}
WHERE cdc_source = {source:String} AND id BETWEEN {first:Int64} AND {last:Int64}
ORDER BY number

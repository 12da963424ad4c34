-- Every row of a range of ids, with a number for its contents, and one that leaves out its time.
SELECT toInt64(id) AS number, ${whole} AS whole, ${rest} AS rest
FROM ${table}
WHERE cdc_source = {source:String} AND id BETWEEN {first:Int64} AND {last:Int64} ${times}
ORDER BY number

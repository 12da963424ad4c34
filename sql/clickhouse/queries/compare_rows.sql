-- Every row of a range of ids, with a hash of its contents, and one without its time.
SELECT toInt64(id) AS number, ${whole} AS whole, ${rest} AS rest
FROM ${table}
WHERE cdc_source = {source:String} AND id BETWEEN {first:Int64} AND {last:Int64} ${those}
ORDER BY number

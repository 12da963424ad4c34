-- Every row of a range of ids: the number of its time, and hashes of its contents.
SELECT toInt64(id) AS number, ${time} AS time, ${contents} AS contents, ${whole} AS whole, ${rest} AS rest
FROM ${table}
WHERE cdc_source = {source:String} AND id BETWEEN {first:Int64} AND {last:Int64} ${those}
ORDER BY number

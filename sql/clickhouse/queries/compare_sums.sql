-- For each range of ids: the number of rows, and the sum of a hash of each row, which wraps at 64 bits.
SELECT intDiv(toInt64(id), ${range}) AS range_number, count() AS row_count, sum(${number}) AS total
FROM ${table}
WHERE cdc_source = {source:String} AND id BETWEEN {first:Int64} AND {last:Int64} ${those}
GROUP BY range_number

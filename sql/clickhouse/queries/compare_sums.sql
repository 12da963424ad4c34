-- For each range of ids: how many rows, and the sum of a number for each of them, which wraps at 64 bits.
SELECT intDiv(toInt64(id), ${range}) AS range_number, count() AS row_count, sum(${number}) AS total
FROM ${table}
WHERE cdc_source = {source:String} AND id BETWEEN {first:Int64} AND {last:Int64} ${times}
GROUP BY range_number

-- For each range of ids, by its first id: the number of rows, and the sum of a hash of each row, which wraps at 64 bits.
SELECT roundDown(toInt64(id), {firsts:Array(Int64)}) AS first_id, count() AS row_count, sum(${number}) AS total
FROM ${table}
WHERE cdc_source = {source:String} AND id BETWEEN {first:Int64} AND {last:Int64} ${those}
GROUP BY first_id

SELECT reason, count() AS letters
FROM ${dead_letters}
WHERE cdc_source = {source:String} AND ${where}
GROUP BY reason
ORDER BY letters DESC, reason
LIMIT ${limit}

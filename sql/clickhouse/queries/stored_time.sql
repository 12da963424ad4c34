-- What a column of this type makes of a time, as text; nothing is stored.
SELECT toString(CAST(fromUnixTimestamp64Micro({us:Int64}, 'UTC') AS ${type}), 'UTC')

-- A time as a column of this type would store it, as text. Nothing is stored.
SELECT toString(CAST(fromUnixTimestamp64Micro({us:Int64}, 'UTC') AS ${type}), 'UTC')

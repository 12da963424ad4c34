-- A time as a column of this type would store it. Nothing is stored.
SELECT toUnixTimestamp64Micro(toDateTime64(CAST(fromUnixTimestamp64Micro({us:Int64}, 'UTC') AS ${type}), 6, 'UTC'))

-- Ids and times of stored events, only within the range of times in which the requested ids can be.
SELECT id, toUnixTimestamp64Micro(toDateTime64(event_date_time, 6, 'UTC')), toTypeName(event_date_time)
FROM ${table}
WHERE cdc_source = {source:String} AND ${ids}
  AND event_date_time BETWEEN fromUnixTimestamp64Micro({from_us:Int64}) AND fromUnixTimestamp64Micro({to_us:Int64})

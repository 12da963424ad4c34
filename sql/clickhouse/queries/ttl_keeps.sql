-- How long a TTL keeps an event of this moment, in seconds; refused if the TTL reads other columns than the event's time.
SELECT dateDiff('second', event_date_time, toDateTime64(${expiry}, 0, 'UTC'))
FROM (SELECT now64(6, 'UTC') AS event_date_time)

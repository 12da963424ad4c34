-- The newest pause or resume. ClickHouse's own clock computes the remaining time, so that no two clocks must agree.
SELECT
    is_paused,
    toUnixTimestamp64Micro(said_at) / 1e6 AS since,
    by,
    reason,
    toUnixTimestamp64Micro(until) / 1e6 AS until_unix,
    (toUnixTimestamp64Micro(until) - toUnixTimestamp64Micro(now64(6, 'UTC'))) / 1e6 AS left_s
FROM ${pauses}
WHERE source = {source:String}
ORDER BY number DESC, said_at DESC
LIMIT 1

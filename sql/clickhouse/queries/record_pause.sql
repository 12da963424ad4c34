INSERT INTO ${pauses} (source, number, is_paused, said_at, until, by, reason)
SELECT
    {source:String},
    1 + max(number),
    {is_paused:Bool},
    now64(6, 'UTC'),
    if({for_s:Int64} > 0, now64(6, 'UTC') + toIntervalSecond({for_s:Int64}), NULL),
    {by:String},
    {reason:String}
FROM ${known}
WHERE source = {source:String}

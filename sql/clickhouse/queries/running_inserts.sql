-- Inserts that ClickHouse is carrying out now, by server and query id: those of one lane, or of all lanes of the source.
-- The mark is the log_comment that each insert carries. This query itself is listed on each server, with an empty id:
-- so a server that does not answer is noticed.
SELECT DISTINCT
    serverUUID(), hostName(),
    if(Settings['log_comment'] = {mark:String}
        OR ({all_lanes:Bool} AND startsWith(Settings['log_comment'], concat({mark:String}, '/'))), query_id, '') AS running
FROM ${processes}

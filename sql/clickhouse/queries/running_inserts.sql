-- Inserts that ClickHouse is carrying out now, by query id: those of one lane, or of all lanes of the source. The mark is
-- the log_comment that each insert carries.
SELECT query_id
FROM system.processes
WHERE Settings['log_comment'] = {mark:String}
   OR ({all_lanes:Bool} AND startsWith(Settings['log_comment'], concat({mark:String}, '/')))

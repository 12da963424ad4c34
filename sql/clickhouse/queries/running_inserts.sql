-- Inserts of this source that ClickHouse is still carrying out; the mark is the log_comment that each of them carries.
SELECT count() FROM system.processes WHERE Settings['log_comment'] = {mark:String}

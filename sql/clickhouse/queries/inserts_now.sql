-- Ids of the running inserts of this source; the mark is the log_comment of each of them.
SELECT query_id FROM system.processes WHERE Settings['log_comment'] = {mark:String}

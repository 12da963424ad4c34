-- Inserts of this source that are being carried out now, by name; the mark is the log_comment that each of them carries.
SELECT query_id FROM system.processes WHERE Settings['log_comment'] = {mark:String}

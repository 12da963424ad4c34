-- The number of running inserts of this source; the mark is the log_comment of each of them.
SELECT count() FROM system.processes WHERE Settings['log_comment'] = {mark:String}

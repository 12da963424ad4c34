-- Running queries with a mark. This one has a mark, too.
SELECT count()
FROM system.processes
WHERE Settings['log_comment'] = {mark:String}
SETTINGS log_comment = ${own_mark}

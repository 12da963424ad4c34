-- When a view got the query that it has, in Unix seconds; 0 if this user may not see it.
SELECT max(toUnixTimestamp(metadata_modification_time)) FROM system.tables
WHERE database = {database:String} AND name = {name:String}

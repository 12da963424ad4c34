-- Columns of a table and their types.
SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {name:String}

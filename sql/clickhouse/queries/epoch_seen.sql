-- The servers that have this epoch: from now on, they refuse inserts of older ones.
SELECT DISTINCT serverUUID(), hostName()
FROM ${epochs}
WHERE source = {source:String} AND epoch = {epoch:UInt64} AND owner = {owner:String}

-- An owner that is in the epochs already is not added: a request that was on its way while ClickHouse was restarted must
-- not bring back an epoch that has ended.
INSERT INTO ${owners} (source, owner)
SELECT {source:String}, {owner:String}
WHERE (SELECT count() FROM ${epochs} WHERE source = {source:String} AND owner = {owner:String}) = 0

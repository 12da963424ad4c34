-- The lines of the copies since the last one that has ended well.
SELECT DISTINCT confirmed_lsn
FROM ${epochs}
WHERE source = {source:String}
  AND epoch < {epoch:UInt64}
  AND epoch > (SELECT max(epoch) FROM ${epochs} WHERE source = {source:String} AND owner = 'done')

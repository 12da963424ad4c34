SELECT epoch, owner, system_identifier, timeline, slot
FROM ${epochs}
WHERE source = {source:String}
ORDER BY epoch DESC, owner DESC
LIMIT 1

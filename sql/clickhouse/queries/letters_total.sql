SELECT count(), countIf(discarded_at IS NOT NULL)
FROM ${dead_letters}
WHERE cdc_source = {source:String} AND ${where}

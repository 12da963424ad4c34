SELECT count(), toUnixTimestamp64Micro(max(cdc_ingested_at)) / 1e6
FROM ${table}
WHERE cdc_source = {source:String}

SELECT count()
FROM ${dead_letters}
WHERE cdc_source = {source:String} AND discarded_at IS NULL
SETTINGS log_comment = 'outhaul:exporter'

-- A small query as an analyst would run it. The metric is its duration; its result is not used.
SELECT count()
FROM ${table}
WHERE cdc_source = {source:String} AND event_date_time >= now() - INTERVAL 1 HOUR
SETTINGS log_comment = 'outhaul:exporter'

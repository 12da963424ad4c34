-- A small question as an analyst asks it: its time is what the metric tells, whatever the answer.
SELECT count()
FROM ${table}
WHERE cdc_source = {source:String} AND event_date_time >= now() - INTERVAL 1 HOUR
SETTINGS log_comment = 'outhaul:exporter'

-- Queries of the table by other users in the last five minutes.
SELECT count(), quantile(0.5)(query_duration_ms) / 1000, quantile(0.99)(query_duration_ms) / 1000
FROM ${log}
WHERE event_date >= today() - 1 AND event_time >= now() - INTERVAL 5 MINUTE
    AND type = 'QueryFinish' AND query_kind = 'Select' AND log_comment != 'outhaul:exporter'
    AND hasAny(tables, arrayMap(name -> concat(currentDatabase(), '.', name), {tables:Array(String)}))
SETTINGS log_comment = 'outhaul:exporter'

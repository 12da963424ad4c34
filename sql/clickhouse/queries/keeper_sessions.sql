-- How old each server's youngest session in Keeper is, in seconds.
SELECT serverUUID(), hostName(), min(session_uptime_elapsed_seconds)
FROM ${sessions}
GROUP BY serverUUID(), hostName()

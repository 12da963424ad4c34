-- A view that fails when the trial wants it to, and gets its rows when they are sent again.
CREATE MATERIALIZED VIEW IF NOT EXISTS ${trial_view}${on_cluster} TO ${trial_copies} AS
SELECT run, number
FROM ${trial}
WHERE NOT throwIf(endsWith(getSetting('log_comment'), '/fails'), 'outhaul: the trial wants its view to fail');

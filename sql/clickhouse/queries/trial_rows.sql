-- Rows of a trial in the table, and what its view has made of them.
SELECT
    (SELECT count() FROM ${trial} WHERE run = {run:String}),
    (SELECT count() FROM ${trial_copies} WHERE run = {run:String})
SETTINGS select_sequential_consistency = 1

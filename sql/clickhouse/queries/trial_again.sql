-- Inserts the rows of a trial again, from the table itself: under their token, this reaches only views that lack them.
INSERT INTO ${trial} (run, number, at)
SELECT run, number, at
FROM ${trial}
WHERE run = {run:String}
ORDER BY number

-- Runs the query of a view, for its error alone.
SELECT * FROM (${as_select}) FORMAT Null

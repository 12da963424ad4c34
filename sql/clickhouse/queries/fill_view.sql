-- Inserts into the target of a view what its query makes of the rows that it lacks; one block, in one order, so that the
-- token is the same whenever it is repeated. A reader that was replaced fills nothing.
INSERT INTO ${target} (${columns})
SELECT ${columns} FROM (${as_select}) WHERE ${fence} ORDER BY ALL

-- Inserts rows of a trial as a batch is inserted: from the body of the request, in one block.
INSERT INTO ${trial} (run, number, at)
SELECT {run:String}, number, at
FROM input('number UInt64, at DateTime64(6, \'UTC\')')
ORDER BY number
FORMAT ArrowStream

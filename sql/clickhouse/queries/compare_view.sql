-- What the query of a view makes of the rows of its source now (side 1), and what its target has (side 2), by group: how
-- many groups there are, how much of them the target lacks, and how much of them it has beyond.
SELECT count(), sum(${lacking}), sum(${beyond})
FROM (
    SELECT found, ${pairs}
    FROM (
        SELECT 1 AS side, cityHash64(tuple(0${keys})) AS found, ${sums} FROM (${made}) GROUP BY found
        UNION ALL
        SELECT 2 AS side, cityHash64(tuple(0${keys})) AS found, ${sums} FROM ${target} GROUP BY found
    )
    GROUP BY found
)

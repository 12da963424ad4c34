-- One side of a comparison as a whole.
SELECT ${sums} FROM ${rows}

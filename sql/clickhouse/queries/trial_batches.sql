-- 1 if a row of the table has the number of a batch, else 0.
SELECT count() FROM (SELECT 1 FROM ${table} WHERE cdc_batch != 0 LIMIT 1)

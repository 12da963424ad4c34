-- Which of these positions are in the event table.
SELECT DISTINCT cdc_lsn, cdc_ordinal
FROM ${table}
WHERE cdc_source = {source:String} AND (cdc_lsn, cdc_ordinal) IN (${positions})

-- The ids of the events at some positions.
SELECT id FROM ${table} WHERE cdc_source = {source:String} AND (cdc_lsn, cdc_ordinal) IN (${positions}) ORDER BY cdc_lsn, cdc_ordinal

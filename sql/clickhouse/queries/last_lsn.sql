-- The greatest position in the log of a stored event; rows that were copied from the outbox have none.
SELECT max(cdc_lsn)
FROM ${table}
WHERE cdc_source = {source:String} AND cdc_lsn % 8 != 7

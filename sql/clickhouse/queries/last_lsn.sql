-- The last stored position after `after`, as an LSN.
SELECT max(cdc_lsn)
FROM ${table}
WHERE cdc_source = {source:String} AND cdc_lsn > {after:UInt64}

-- The ids of the first events of this source for which a condition holds.
SELECT id FROM ${table} WHERE cdc_source = {source:String} AND (${condition}) ORDER BY cdc_lsn, cdc_ordinal LIMIT {limit:UInt32}

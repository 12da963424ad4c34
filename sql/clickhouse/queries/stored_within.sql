-- The positions in the range of a batch that a table already has, and perhaps more columns of their rows.
SELECT cdc_lsn, cdc_ordinal${more} FROM ${table}
WHERE cdc_source = {source:String}
  AND cdc_lsn BETWEEN {first_lsn:UInt64} AND {last_lsn:UInt64}
  AND cdc_ordinal BETWEEN {first_ordinal:UInt64} AND {last_ordinal:UInt64}
  ${when}

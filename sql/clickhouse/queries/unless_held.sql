-- Added to every sending of a batch but the first, once for each table that may hold rows of it: the token alone is
-- remembered for a while, the rows for ever.
AND (cdc_lsn, cdc_ordinal) NOT IN (
    SELECT cdc_lsn, cdc_ordinal FROM ${table}
    WHERE cdc_source = {source:String} AND cdc_lsn BETWEEN {first_lsn:UInt64} AND {last_lsn:UInt64}
)

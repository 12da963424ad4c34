-- Leaves out of a batch what is stored already, once for each table that may hold rows of it: a token is remembered for a
-- while, the rows for ever. Every sending asks, the first, too: its worker may have slept while a later one was stored.
AND (cdc_lsn, cdc_ordinal) NOT IN (
    SELECT cdc_lsn, cdc_ordinal FROM ${table}
    WHERE cdc_source = {source:String}
      AND cdc_lsn BETWEEN {first_lsn:UInt64} AND {last_lsn:UInt64}
      AND cdc_ordinal BETWEEN {first_ordinal:UInt64} AND {last_ordinal:UInt64}
      ${when}
)

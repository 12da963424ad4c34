-- Refuses to send the rows of a batch from a server that does not have each of them once. A replica may not have received
-- all of them. While an insert is in doubt, a replica may have some twice. A subquery of its own, so that a server that
-- has no row at all refuses, too.
AND (
    SELECT throwIf(count() != {expected:UInt64}, 'outhaul: a replica lags') FROM ${table}
    WHERE cdc_source = {source:String}
      AND cdc_batch = {batch:UInt64}
      AND cdc_lsn BETWEEN {first_lsn:UInt64} AND {last_lsn:UInt64}
) = 0

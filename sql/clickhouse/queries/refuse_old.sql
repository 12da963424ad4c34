-- Refuses to send a batch again if its token may be forgotten, since too many batches or too much time have passed.
-- A replica that does not show the batch does not know how old it is; Keeper knows its token.
AND throwIf((
    SELECT count() > 0 AND (
        uniqExact(cdc_source, cdc_batch) > {max_batches:UInt64}
        OR dateDiff('second', min(cdc_ingested_at), now64(6, 'UTC')) > {max_seconds:UInt64}
    )
    FROM ${table}
    WHERE cdc_ingested_at >= (
        SELECT minOrNull(cdc_ingested_at) FROM ${table}
        WHERE cdc_source = {source:String}
          AND cdc_batch = {batch:UInt64}
          AND cdc_lsn BETWEEN {first_lsn:UInt64} AND {last_lsn:UInt64}
    )
), 'outhaul: forgotten') = 0

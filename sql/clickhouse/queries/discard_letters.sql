-- The id stays, since it alone identifies the row in the outbox.
ALTER TABLE ${dead_letters}
UPDATE row = concat('{"id": "', extract(row, '"id": ?"?(-?[0-9]+)'), '"}'), discarded_at = now64(6, 'UTC')
WHERE cdc_source = ${source} AND discarded_at IS NULL AND (cdc_lsn, cdc_ordinal) IN (${positions})

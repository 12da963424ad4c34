-- Id and time stay, since they identify the row in the outbox.
ALTER TABLE ${dead_letters}
UPDATE
    row = concat(
        '{"id": "', extract(row, '"id": ?"?(-?[0-9]+)'), '"',
        if(
            position(row, '"event_date_time":') = 0,
            '',
            concat(', "event_date_time": ', extract(row, '"event_date_time": ?("[^"]*"|null)'))
        ),
        '}'
    ),
    discarded_at = now64(6, 'UTC')
WHERE cdc_source = ${source} AND discarded_at IS NULL AND (cdc_lsn, cdc_ordinal) IN (${positions})

-- The table that apps write events to, in the transaction of their business change.
-- An existing outbox is not changed; see the README for the columns it needs.
CREATE TABLE IF NOT EXISTS ${table} (
    id               bigserial PRIMARY KEY,
    event_type       varchar(255) NOT NULL,
    event_date_time  timestamptz DEFAULT now(),
    environment      varchar(255) NOT NULL,
    event_context    jsonb NOT NULL,
    metadata_version bigint DEFAULT 1,
    event_key        text UNIQUE  -- idempotency key: INSERT ... ON CONFLICT (event_key) DO NOTHING
);

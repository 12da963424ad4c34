-- The owners of epochs since ClickHouse was started: a table of engine Memory is empty after a restart. An insert of an
-- owner that is not in here is refused, since a ClickHouse that was killed may remember the token of an insert without
-- its rows. Tables that are replicated need no such check.
CREATE TABLE IF NOT EXISTS ${owners}${on_cluster} (
    source LowCardinality(String),
    owner  String
)
ENGINE = Memory;

"""The embedded ClickHouse engine -> a server that speaks HTTP as ClickHouse does."""

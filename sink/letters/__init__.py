"""Dead letters: rows that ClickHouse refused, stored whole; they can be retried or discarded."""

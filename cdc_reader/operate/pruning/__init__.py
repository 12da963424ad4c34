"""Old rows that are proven stored leave the outbox: row by row, or whole partitions.

`prune` makes a pass: `table` gives rows some at a time and deletes them, `proof` asks ClickHouse for each; `partitions`
and `bounds` take care of a partitioned outbox. `task` is the same pass for Celery beat.
"""

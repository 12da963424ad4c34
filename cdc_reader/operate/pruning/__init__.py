"""Old rows of the outbox, proven to be stored -> deleted: row by row, or as whole partitions.

`prune` makes a pass: `outbox_table` reads pages of rows and deletes rows, `stored_rows` asks ClickHouse which of them
it has; `partitions` and `partition_bounds` are for a partitioned outbox. `prune_task` is the same pass for Celery beat.
"""

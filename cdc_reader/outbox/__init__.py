"""The outbox table as a second log -> the rows that ClickHouse lacks, stored once, beside the stream.

In the order of the work: `snapshot` defines which rows are the table's share and which the stream's. `table_shape`
reads the table's definition. `fingerprint`, `id_ranges` and `compare` find the differences. `rows` and `copy_cells`
read the missing rows, `parallel` in several threads. `delivery` sends them to the sink. `heal` joins these files, and
`heal_due` records that a heal is due.
"""

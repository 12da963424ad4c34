"""The outbox table as a second log: what ClickHouse lacks of it, and how that gets there, once, beside the stream.

In the order of their work: `snapshot` says which rows are the table's share and which the stream's; `table_shape` what
the table looks like; `fingerprint`, `id_ranges` and `compare` find where both sides differ; `rows` and `copy_cells`
read what is missing, `parallel` in several threads; `delivery` sends it through the sink; `heal` joins them, and
`heal_due` remembers that one is due.
"""

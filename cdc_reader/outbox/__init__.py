"""The outbox table as a second log: what ClickHouse lacks of it, and how that gets there, once, beside the stream.

In the order of their work: `line` says which rows are the table's share and which the stream's; `shape` what the table
looks like; `fingerprint` and `compare` find where both sides differ; `cells` and `rows` read what is missing;
`delivery` sends it through the sink; `heal` joins them.
"""

"""Environment and a TOML file -> `Settings`, and two smaller values for functions that need less.

- `Settings`: everything that can be set; one frozen tree, checked as a whole.
- `Outbox`: one captured table and the ClickHouse tables for its rows.
- `Stream`: one replication slot with its publication, and which rows arrive through it.

A process calls `load` once and passes values on. Nothing else reads OUTHAUL_* settings from the environment.
"""

from outhaul.sink.settings.load import load, load_from
from outhaul.sink.settings.settings import DEDUPLICATION_WINDOW, MAX_SHARDS, SHARD_BITS, Outbox, Settings, Stream

__all__ = ["DEDUPLICATION_WINDOW", "MAX_SHARDS", "SHARD_BITS", "Outbox", "Settings", "Stream", "load", "load_from"]

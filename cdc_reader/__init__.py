"""Replication slot -> batches in Redis, and the position that the slot may confirm; and the commands of `outhaul`.

The folders from the bottom up: `postgres`, `capture`, `session`, `outbox`, `slots`, `operate`, `cli`. `reader.py` runs
one session after another. pyproject.toml has the layers as contracts.
"""

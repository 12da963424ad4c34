"""Source and lane -> the name of its fence in ClickHouse and Redis, and the mark of its inserts.

Pure. The rows of a source come in lanes: the stream, or one lane for each shard of the stream, and the copies from the
outbox. Each lane has a fence of its own, so a new epoch of one lane does not refuse inserts of another.
"""

from __future__ import annotations

STREAM = "stream"
COPY = "copy"

COPY_DONE = "done"
"""Owner of the last epoch of a copy that has ended well."""


def fence(source: str, lane: str) -> str:
    """Return the name under which ClickHouse and Redis count the epochs of a lane."""
    return source if lane == STREAM else f"{source}/{lane}"


def stream_lane(shard: int, shards: int) -> str:
    """Return the lane of one shard of a stream."""
    return f"{STREAM}_{shard}of{shards}"


def mark(fence: str) -> str:
    """Return the log_comment of all inserts that this fence guards; it identifies them among the running queries."""
    return f"outhaul:{fence}"

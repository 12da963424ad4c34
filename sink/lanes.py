"""Source and lane -> the name under which ClickHouse and Redis count epochs, and the mark of the lane's inserts.

Pure. The rows of a source come in lanes, and each lane has a fence of its own: the stream's, or one for each shard of
it, and that of rows copied from the outbox.
"""

from __future__ import annotations

STREAM = "stream"
COPY = "copy"


def fence(source: str, lane: str) -> str:
    """Return the name under which ClickHouse and Redis count the epochs of a lane."""
    return source if lane == STREAM else f"{source}/{lane}"


def stream_lane(shard: int, shards: int) -> str:
    """Return the lane of one shard of a stream."""
    return f"{STREAM}_{shard}of{shards}"


def mark(fence: str) -> str:
    """Return the log_comment that the inserts behind one fence have among ClickHouse's running queries."""
    return f"outhaul:{fence}"

"""One replication slot with its publication, and which rows arrive through it.

Pure. A pipeline has one stream, or one for each shard. All shards read the same outboxes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outhaul.sink import keys

if TYPE_CHECKING:
    from outhaul.sink.settings.tree import Settings

# Each shard has its own range of ordinals within a transaction, below those of events without a table.
MAX_SHARDS = 64
SHARD_BITS = 33


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of rows; `settings` are those of its pipeline.

    `shard` is the number of the shard among `shards`, or None if the stream is not divided.
    """

    shard: int | None
    shards: int
    settings: Settings = field(repr=False, hash=False)

    @property
    def slot(self) -> str:
        """Name of the replication slot."""
        return self.settings.slot + self._suffix

    @property
    def publication(self) -> str:
        """Name of the publication."""
        return self.settings.publication + self._suffix

    @property
    def lane(self) -> str:
        """Lane of the stream's rows."""
        return keys.STREAM if self.shard is None else keys.stream_lane(self.shard, self.shards)

    @property
    def fence(self) -> str:
        """Name under which the epochs of the stream are counted, and by which its reader is known in Redis."""
        return keys.fence(self.settings.source, self.lane)

    @property
    def first_ordinal(self) -> int:
        """Number of the first row of a transaction; the next shard's is 2^33 more."""
        return (self.shard or 0) << SHARD_BITS

    @property
    def row_condition(self) -> str:
        """SQL that holds for the ids of the stream's rows, in Postgres and ClickHouse alike; empty: for all rows."""
        return "" if self.shard is None else f"abs(id % {self.shards}) = {self.shard}"

    @property
    def message_prefix(self) -> str:
        """Prefix of events without a table, which arrive through the first shard; empty for the other shards."""
        return "" if self.shard else self.settings.publication

    @property
    def _suffix(self) -> str:
        return "" if self.shard is None else f"_{self.shard}of{self.shards}"

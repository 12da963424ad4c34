"""Batches sent, reports heard -> which batches to send again, and how old the oldest is.

Pure. Payloads stay here until they are stored, so that losing all of Redis costs another dispatch and nothing else. How many there
can be is bounded by the watermark's window, how large each is by the batcher.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdc_reader.assemble import Assembled
    from sink.batch import Message


@dataclass(slots=True)
class Entry:
    """A batch in flight; `heard_at` is the clock at the last sign of life of its task, None while it waits to be sent."""

    message: Message
    assembled: Assembled
    heard_at: float | None = None


class Ledger:
    """All batches that are not stored yet, by sequence number."""

    def __init__(self) -> None:
        """Start empty."""
        self.entries: dict[int, Entry] = {}

    @property
    def rows(self) -> int:
        """Rows in flight."""
        return sum(entry.message.rows for entry in self.entries.values())

    @property
    def size(self) -> int:
        """Bytes of payload in flight."""
        return sum(entry.message.size_bytes for entry in self.entries.values())

    def oldest_commit_us(self) -> int | None:
        """Commit time of the oldest row in flight, Unix µs; None when nothing is."""
        return min((int(entry.assembled.committed_at_us[0]) for entry in self.entries.values()), default=None)

    def add(self, message: Message, assembled: Assembled) -> None:
        """Note a batch that is about to be sent."""
        self.entries[message.sequence] = Entry(message, assembled)

    def heard(self, sequence: int, now: float) -> None:
        """Note that the batch is on its way, or that its task is alive."""
        if sequence in self.entries:
            self.entries[sequence].heard_at = now

    def settle(self, sequence: int, token: str) -> Entry | None:
        """Take out a stored batch; None when it is not in flight."""
        entry = self.entries.get(sequence)
        if entry is None or entry.message.token != token:
            return None
        return self.entries.pop(sequence)

    def decide_again(self, now: float, patience_s: float) -> list[int]:
        """Return the batches whose tasks have been silent for too long."""
        return [n for n, entry in self.entries.items() if entry.heard_at is not None and now - entry.heard_at >= patience_s]

    def on_their_way(self) -> list[int]:
        """Return the batches that were sent, all of which may be lost when Redis was."""
        return [n for n, entry in self.entries.items() if entry.heard_at is not None]

    def again(self, sequence: int) -> Entry | None:
        """Mark a batch as waiting to be sent once more, and return it; None when it is not in flight or waits already."""
        entry = self.entries.get(sequence)
        if entry is None or entry.heard_at is None:
            return None
        entry.heard_at = None
        entry.message = replace(entry.message, attempt=entry.message.attempt + 1)
        return entry

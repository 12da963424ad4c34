"""Batches sent, reports of workers -> which batches to send again, and how old the oldest is.

Pure. The reader keeps a payload until it is stored, so that the loss of all of Redis costs another dispatch and nothing
else. The watermark limits the number of batches in flight, batching.py their size. Sending a batch once too often is
harmless, so a batch that may be lost is sent again; `_seems_lost` has the rules.

Source: docs/adr/0001-clickhouse-is-the-checkpoint.md
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.sink.batch import Message

# Seconds without a report after which a message seems lost; doubles with every sending.
RESEND_S = 5.0
# Seconds until a batch is sent again that a worker of another release has refused. It is the first value while other
# batches are stored, since upgraded workers run, too. It doubles with every round of refusals, up to the second value.
_REFUSED_S, _REFUSED_MAX_S = 1.0, 15.0
# A task reports that it has begun shortly before its sign of life is in Redis.
_GRACE_S = 2.0


class Phase(Enum):
    """How far a batch in flight has come, as far as the reader knows."""

    WAITING = auto()  # waits to be sent
    SENT = auto()  # the broker has its message
    BEGUN = auto()  # a worker processes it
    RETRYING = auto()  # its worker will try again
    REFUSED = auto()  # a worker of another release could not read it; another worker may


@dataclass(frozen=True, slots=True)
class TaskHealth:
    """State of the batches in flight in Redis: messages in the queue, and the tokens of tasks that are alive."""

    queued: int
    alive: frozenset[str]


@dataclass(slots=True)
class Entry:
    """A batch in flight.

    `packed_at` is the clock when it was added, `since` the clock of the last change of its phase. `wait_s` is the wait
    that a retrying task reported, or the wait of a refused batch. `refusals` is the number of workers that could not
    read its message. A refusal may be reported before the stage has noted that the batch is sent: then
    `refused_for_s` keeps its wait. All times are in seconds.
    """

    message: Message
    assembled: Assembled
    packed_at: float
    phase: Phase = Phase.WAITING
    since: float = 0.0
    wait_s: float = 0.0
    refusals: int = 0
    refused_for_s: float = 0.0


class Ledger:
    """All batches that are not stored yet, by sequence number, for one thread.

    Another thread may read `begun_tokens`, the tokens of batches that workers process: each change makes a new set.
    """

    def __init__(self, resend_max_s: float) -> None:
        """Start empty; a message without a report seems lost after `resend_max_s` seconds at most."""
        self.entries: dict[int, Entry] = {}
        self.begun_tokens: frozenset[str] = frozenset()
        self._resend_max_s = resend_max_s
        self._refusals = 0  # since a batch was stored

    @property
    def rows(self) -> int:
        """Rows in flight."""
        return sum(entry.message.rows for entry in self.entries.values())

    @property
    def size(self) -> int:
        """Bytes of payload in flight."""
        return sum(entry.message.size_bytes for entry in self.entries.values())

    def oldest_commit_us(self) -> int | None:
        """Commit time of the oldest row in flight, Unix µs; None without a batch in flight."""
        return min((int(entry.assembled.committed_at_us[0]) for entry in self.entries.values()), default=None)

    def oldest_s(self, now: float) -> float:
        """Age of the oldest batch in flight, in seconds; 0 without a batch in flight."""
        return now - min((entry.packed_at for entry in self.entries.values()), default=now)

    def add(self, message: Message, assembled: Assembled, now: float) -> Entry:
        """Add a batch that is about to be sent."""
        entry = Entry(message, assembled, now)
        self.entries[message.sequence] = entry
        return entry

    def has(self, sequence: int, token: str) -> bool:
        """Tell whether the batch with this number and this token is in flight."""
        entry = self.entries.get(sequence)
        return entry is not None and entry.message.token == token

    def note(self, sequence: int, phase: Phase, now: float, wait_s: float = 0.0) -> None:
        """Set the phase of a batch; reports of an earlier sending are ignored while a batch waits to be sent again."""
        entry = self.entries.get(sequence)
        if entry is None or (entry.phase is Phase.WAITING and phase is not Phase.SENT):
            return
        if phase is Phase.SENT and entry.phase is not Phase.WAITING:
            return
        if phase is Phase.SENT and entry.refused_for_s:
            phase, wait_s = Phase.REFUSED, entry.refused_for_s
        self._move(entry, phase)
        entry.since, entry.wait_s, entry.refused_for_s = now, wait_s, 0.0

    def refused(self, sequence: int, now: float) -> float:
        """Note that a worker could not read a batch's message; return the wait until it is sent again, in seconds.

        If another worker already processes or retries the batch, nothing changes, and 0 is returned.
        """
        entry = self.entries.get(sequence)
        if entry is None or entry.phase not in {Phase.WAITING, Phase.SENT}:
            return 0.0
        rounds = self._refusals // len(self.entries)
        wait_s: float = min(_REFUSED_MAX_S, _REFUSED_S * 2 ** min(rounds, 16))
        self._refusals += 1
        entry.refusals += 1
        if entry.phase is Phase.WAITING:
            entry.refused_for_s = wait_s
        else:
            self.note(sequence, Phase.REFUSED, now, wait_s)
        return wait_s

    def remove(self, sequence: int, token: str) -> Entry | None:
        """Remove a stored batch and return it; None if it is not in flight."""
        entry = self.entries.get(sequence)
        if entry is None or entry.message.token != token:
            return None
        self._refusals = 0
        for other in self.entries.values():
            other.wait_s = min(other.wait_s, _REFUSED_S) if other.phase is Phase.REFUSED else other.wait_s
        del self.entries[sequence]
        self.begun_tokens -= {token}
        return entry

    def decide_resends(self, now: float, health: TaskHealth) -> list[int]:
        """Return the numbers of the batches whose message or task seems lost."""
        return [number for number, entry in self.entries.items() if self._seems_lost(entry, now, health)]

    def sent(self) -> list[int]:
        """Return the numbers of the batches that were sent; if Redis has lost its data, they may be lost."""
        return [number for number, entry in self.entries.items() if entry.phase is not Phase.WAITING]

    def mark_for_resend(self, sequence: int) -> Entry | None:
        """Let a batch wait to be sent again, and return it; None if it is not in flight or waits already."""
        entry = self.entries.get(sequence)
        if entry is None or entry.phase is Phase.WAITING:
            return None
        self._move(entry, Phase.WAITING)
        entry.message = replace(entry.message, attempt=entry.message.attempt + 1)
        return entry

    def _move(self, entry: Entry, phase: Phase) -> None:
        entry.phase = phase
        token = {entry.message.token}
        self.begun_tokens = self.begun_tokens | token if phase is Phase.BEGUN else self.begun_tokens - token

    def _seems_lost(self, entry: Entry, now: float, health: TaskHealth) -> bool:
        silent_s = now - entry.since
        # Refused messages were not lost, so they must not lengthen the time until a message seems lost.
        lost = max(0, entry.message.attempt - entry.refusals)
        resend_s: float = min(self._resend_max_s, RESEND_S * 2 ** min(lost, 16))
        match entry.phase:
            case Phase.WAITING:
                return False
            case Phase.SENT:
                # While the queue has messages, this one may be among them: workers are slow, or no worker runs. The
                # others may as well be those of other shards, so that is no reason to wait longer than the limit.
                return silent_s >= (self._resend_max_s if health.queued else resend_s)
            case Phase.BEGUN:
                return entry.message.token not in health.alive and silent_s >= _GRACE_S
            case Phase.RETRYING:
                return silent_s >= entry.wait_s + resend_s
            case Phase.REFUSED:
                return silent_s >= entry.wait_s

"""Batches sent, reports heard -> which batches to send again, and how old the oldest is.

Pure. Payloads stay here until they are stored, so that losing all of Redis costs another dispatch and nothing else.
How many there can be is bounded by the watermark's window, how large each is by the batcher. Sending a batch once too
often is harmless, so doubt is settled by sending it; the table of doubts is `_doubt`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.sink.batch import Message

# Seconds after which an unanswered message is doubted; doubles with every sending.
PATIENCE_S = 5.0
# How long a batch rests that a worker of another release has refused, in seconds: while others are stored, since an
# upgraded worker is at work beside it; and at most. In between it doubles with every round of refusals.
_REFUSED_S, _REFUSED_MAX_S = 1.0, 15.0
# A task reports that it has begun just before its sign of life can be looked for.
_GRACE_S = 2.0


class Phase(Enum):
    """How far a batch in flight has come, as far as the reader knows."""

    WAITING = auto()  # to be sent
    SENT = auto()  # the broker has it
    BEGUN = auto()  # a worker has it in hand
    RETRYING = auto()  # its worker will try again
    REFUSED = auto()  # a worker of another release cannot read it; another may


@dataclass(frozen=True, slots=True)
class Health:
    """What Redis knows of the batches in flight: messages in the queue, and tokens whose tasks are alive."""

    queued: int
    alive: frozenset[str]


@dataclass(slots=True)
class Entry:
    """A batch in flight.

    `packed_at` is the clock when it came, `since` at the last change of its phase, `wait_s` what a retrying task
    announced or a refused batch rests, all in seconds; `refusals` counts the workers that could not read its message,
    and `early_s` is how long it is to rest where one said so before the broker's own word had come.
    """

    message: Message
    assembled: Assembled
    packed_at: float
    phase: Phase = Phase.WAITING
    since: float = 0.0
    wait_s: float = 0.0
    refusals: int = 0
    early_s: float = 0.0


class Ledger:
    """All batches that are not stored yet, by sequence number, for one thread.

    Another thread may read `begun_tokens`, the tokens of the batches that workers have in hand: each change makes a new
    set.
    """

    def __init__(self, patience_max_s: float) -> None:
        """Start empty; no doubt takes longer than `patience_max_s` seconds."""
        self.entries: dict[int, Entry] = {}
        self.begun_tokens: frozenset[str] = frozenset()
        self._patience_max_s = patience_max_s
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
        """Commit time of the oldest row in flight, Unix µs; None when nothing is."""
        return min((int(entry.assembled.committed_at_us[0]) for entry in self.entries.values()), default=None)

    def oldest_s(self, now: float) -> float:
        """Age of the oldest batch in flight, in seconds; 0 when none is."""
        return now - min((entry.packed_at for entry in self.entries.values()), default=now)

    def add(self, message: Message, assembled: Assembled, now: float) -> Entry:
        """Note a batch that is about to be sent."""
        entry = Entry(message, assembled, now)
        self.entries[message.sequence] = entry
        return entry

    def awaits(self, sequence: int, token: str) -> bool:
        """Tell whether this very batch is in flight."""
        entry = self.entries.get(sequence)
        return entry is not None and entry.message.token == token

    def note(self, sequence: int, phase: Phase, now: float, wait_s: float = 0.0) -> None:
        """Note how far a batch has come; a batch that waits to be sent again ignores reports of its last sending."""
        entry = self.entries.get(sequence)
        if entry is None or (entry.phase is Phase.WAITING and phase is not Phase.SENT):
            return
        if phase is Phase.SENT and entry.phase is not Phase.WAITING:
            return
        if phase is Phase.SENT and entry.early_s:
            phase, wait_s = Phase.REFUSED, entry.early_s
        self._move(entry, phase)
        entry.since, entry.wait_s, entry.early_s = now, wait_s, 0.0

    def refused(self, sequence: int, now: float) -> float:
        """Note that a worker could not read a batch's message; return how long it rests, in seconds.

        Another sending of it may be in better hands, which this does not touch: 0 is returned.
        """
        entry = self.entries.get(sequence)
        if entry is None or entry.phase not in {Phase.WAITING, Phase.SENT}:
            return 0.0
        rounds = self._refusals // len(self.entries)
        wait_s: float = min(_REFUSED_MAX_S, _REFUSED_S * 2 ** min(rounds, 16))
        self._refusals += 1
        entry.refusals += 1
        if entry.phase is Phase.WAITING:
            entry.early_s = wait_s
        else:
            self.note(sequence, Phase.REFUSED, now, wait_s)
        return wait_s

    def remove(self, sequence: int, token: str) -> Entry | None:
        """Take out a stored batch; None when it is not in flight."""
        entry = self.entries.get(sequence)
        if entry is None or entry.message.token != token:
            return None
        self._refusals = 0
        for resting in self.entries.values():
            resting.wait_s = min(resting.wait_s, _REFUSED_S) if resting.phase is Phase.REFUSED else resting.wait_s
        del self.entries[sequence]
        self.begun_tokens -= {token}
        return entry

    def decide_again(self, now: float, health: Health) -> list[int]:
        """Return the batches whose messages or tasks seem to be lost."""
        return [number for number, entry in self.entries.items() if self._doubt(entry, now, health)]

    def on_their_way(self) -> list[int]:
        """Return the batches that were sent, all of which may be lost when Redis was."""
        return [number for number, entry in self.entries.items() if entry.phase is not Phase.WAITING]

    def again(self, sequence: int) -> Entry | None:
        """Mark a batch as waiting to be sent again, and return it; None when it is not in flight or waits already."""
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

    def _doubt(self, entry: Entry, now: float, health: Health) -> bool:
        silent_s = now - entry.since
        # What was refused was not lost: no reason to be slower to think so.
        lost = max(0, entry.message.attempt - entry.refusals)
        patience_s: float = min(self._patience_max_s, PATIENCE_S * 2 ** min(lost, 16))
        match entry.phase:
            case Phase.WAITING:
                return False
            case Phase.SENT:
                # While messages queue, ours may be among them: workers are slow, or there are none.
                return health.queued == 0 and silent_s >= patience_s
            case Phase.BEGUN:
                return entry.message.token not in health.alive and silent_s >= _GRACE_S
            case Phase.RETRYING:
                return silent_s >= entry.wait_s + patience_s
            case Phase.REFUSED:
                return silent_s >= entry.wait_s

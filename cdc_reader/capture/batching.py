"""Frames, one read after the other -> pieces to decode, and where one batch ends and the next begins.

Pure. A piece is what is decoded at a time: small enough for the processor's caches, whatever the size of the batch. A
batch is small at rest, for latency, and large under load, for throughput and few parts: the more is in flight, and the
later its rows are already, the longer it may fill. Frames are counted for rows, which they bound from above; they are
not looked into here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from outhaul.cdc_reader.capture.frame import Run

PIECE_BYTES = 4 << 20

# What comes after a rest goes on at once, but for a moment in which the rest of its transaction may come, in seconds.
_GATHER_S = 0.02
# Rows that are late already may wait for so much of that time again; under a backlog this makes batches large.
_SHARE_OF_LAG = 0.25
_MAX_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is full or old enough."""

    max_rows: int
    max_bytes: int
    linger_s: float
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class Load:
    """What is going on: batches in flight, how late the newest rows were (seconds), and whether more crowd in."""

    in_flight: int = 0
    lag_s: float = 0.0
    crowded: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames that are decoded together; `ends_batch` says that what comes next belongs to another batch."""

    run: Run
    ends_batch: bool


@dataclass(slots=True)
class Filling:
    """The batch that fills: its newest piece, what was handed on before that, and two moments of the clock, in seconds.

    `begun_at` is when the batch before it ended, `since` when its first frame came.
    """

    run: Run = field(default_factory=Run)
    handed_frames: int = 0
    handed_bytes: int = 0
    begun_at: float = float("-inf")
    since: float = 0.0

    @property
    def frames(self) -> int:
        """Frames of the batch so far."""
        return self.handed_frames + len(self.run.lengths)

    @property
    def size(self) -> int:
        """Bytes of the batch so far, as they came."""
        return self.handed_bytes + len(self.run.data)

    def hand_on(self) -> Run:
        """Return the newest piece's frames and begin another piece of the same batch."""
        run, self.run = self.run, Run()
        self.handed_frames += len(run.lengths)
        self.handed_bytes += len(run.data)
        return run


class Cut(Enum):
    """What to do with the newest piece."""

    NOTHING = auto()
    PIECE = auto()  # hand it on, the batch goes on filling
    BATCH = auto()  # hand it on, and the batch ends with it


def room(filling: Filling, limits: Limits) -> tuple[int, int]:
    """Return how many bytes and frames the next read may take; 0 or less of either when the reader must wait."""
    size = min(PIECE_BYTES - len(filling.run.data), limits.max_bytes - filling.size)
    return size, limits.max_rows - filling.frames


def is_full(filling: Filling, limits: Limits) -> bool:
    """Tell whether the batch must not grow any more."""
    return filling.size >= limits.max_bytes or filling.frames >= limits.max_rows


def due_at(filling: Filling, limits: Limits, load: Load) -> float:
    """Return the clock at which the batch may end, in seconds; infinity for an empty one.

    Batches end at least one linger apart, so no row waits longer than that for company, and one that comes alone
    hardly at all.
    """
    if not filling.frames:
        return float("inf")
    apart_s = limits.linger_s * (1 + load.in_flight)
    late_s = min(load.lag_s * _SHARE_OF_LAG, _MAX_WAIT_S) if load.crowded else 0.0
    return max(filling.begun_at + apart_s, filling.since + max(late_s, min(_GATHER_S, limits.linger_s)))


def decide_cut(filling: Filling, limits: Limits, load: Load, now: float, *, decoder_has_room: bool) -> Cut:
    """Decide whether the piece is handed on, and whether its batch ends: full or due, with room for one more."""
    if not filling.frames or not decoder_has_room:
        return Cut.NOTHING
    due = is_full(filling, limits) or now >= due_at(filling, limits, load)
    if due and load.in_flight < limits.max_in_flight:
        return Cut.BATCH
    return Cut.PIECE if len(filling.run.data) >= PIECE_BYTES else Cut.NOTHING

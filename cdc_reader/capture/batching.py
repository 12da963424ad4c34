"""Frames, one read after the other -> pieces to decode, and where one batch ends and the next begins.

Pure; `Intake` has the state and calls the decisions. A piece is what is decoded at a time: small enough for the
processor's caches, whatever the size of the batch. A batch is small at rest, for latency, and large under load, for
throughput and few parts: the more is in flight, and the later its rows are already, the longer it may fill. Each frame
counts as one row, so a batch has at most as many rows as frames; nothing here looks into a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from outhaul.cdc_reader.capture.frame import Run

PIECE_BYTES = 4 << 20
# What waits to be decoded is the largest thing in memory but for packed batches, so few pieces of it may.
_MAX_UNDECODED = 3
_NOTHING = (0, 0)

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


class Intake:
    """Between socket and decoder: the batch that fills, the pieces that wait, and how late the newest rows were."""

    def __init__(self, limits: Limits) -> None:
        """Start empty."""
        self.lag_s = 0.0
        self._limits = limits
        self._filling = Filling()
        self._undecoded = 0

    @property
    def run(self) -> Run:
        """Where the next read goes."""
        return self._filling.run

    @property
    def is_empty(self) -> bool:
        """Whether no frame waits for its batch to end."""
        return not self._filling.frames

    def room(self) -> tuple[int, int]:
        """Return how many bytes and frames may be read; none while batch or decoder are full."""
        if not self._decoder_has_room() or is_full(self._filling, self._limits):
            return _NOTHING
        return room(self._filling, self._limits)

    def begin(self, now: float) -> None:
        """Let the age of the batch count from `now`, with its first frame."""
        self._filling.since = now

    def due_at(self, load: Load) -> float:
        """Return the clock at which the batch may end by itself; infinity while something else must happen first."""
        if load.in_flight >= self._limits.max_in_flight or not self._decoder_has_room():
            return float("inf")
        return due_at(self._filling, self._limits, load)

    def hand_on(self, load: Load, now: float, *, draining: bool) -> Piece | None:
        """Return the piece that goes to the decoder now, if one does; whoever drains lets nothing wait."""
        cut = decide_cut(self._filling, self._limits, load, now, decoder_has_room=self._decoder_has_room())
        if draining and self._filling.frames:
            cut = Cut.BATCH
        if cut is Cut.NOTHING:
            return None
        piece = Piece(self._filling.hand_on(), ends_batch=cut is Cut.BATCH)
        if piece.ends_batch:
            self._filling = Filling(begun_at=now)
        self._undecoded += 1
        return piece

    def decoded(self, lag_s: float | None) -> None:
        """Note that the decoder took in a piece, and how late its newest row was, if it had one."""
        self._undecoded -= 1
        self.lag_s = self.lag_s if lag_s is None else lag_s

    def _decoder_has_room(self) -> bool:
        return self._undecoded < _MAX_UNDECODED

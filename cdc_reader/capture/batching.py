"""Frames in the order of the stream -> pieces to decode, and where one batch ends and the next begins.

Pure; `Intake` has the state and calls the decisions. A piece is decoded in one call; it fits into the CPU's caches,
whatever the size of the batch. A batch is small when the stream is idle, for latency, and large under load, for
throughput and for few parts in ClickHouse: the more batches are in flight, and the later the rows are, the longer it
may fill. Each frame counts as one row, so a batch has at most as many rows as frames; this file reads no frame.

Source: docs/adr/0005-rows-gather-in-the-servers-send-buffer.md
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from outhaul.cdc_reader.capture.frame import Run

PIECE_BYTES = 4 << 20
# Undecoded pieces take the most memory after packed batches, so only a few may wait.
_MAX_UNDECODED = 3
_NOTHING = (0, 0)

# After an idle time a batch waits only this long, in seconds, for the other rows of its first row's transaction.
_GATHER_S = 0.02
# If the stream is busy, a batch may also fill for this share of its rows' delay, up to `_MAX_WAIT_S` seconds: batches
# become large when there is a backlog.
_SHARE_OF_LAG = 0.25
_MAX_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a batch: rows, bytes as received, time between two batches in seconds, batches in flight."""

    max_rows: int
    max_bytes: int
    linger_s: float
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class Load:
    """The load: batches in flight, seconds from the newest rows' commit to now, and whether the stream is busy."""

    in_flight: int = 0
    lag_s: float = 0.0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames that are decoded together; `ends_batch` marks the last piece of a batch."""

    run: Run
    ends_batch: bool


@dataclass(slots=True)
class Filling:
    """The batch that fills: `run` is its newest piece, `handed_*` counts its earlier pieces.

    `begun_at` is the clock when the previous batch ended, `since` when the first frame of this one came, in seconds.
    """

    run: Run = field(default_factory=Run)
    handed_frames: int = 0
    handed_bytes: int = 0
    begun_at: float = float("-inf")
    since: float = 0.0

    @property
    def frames(self) -> int:
        """Number of frames in the batch so far."""
        return self.handed_frames + len(self.run.lengths)

    @property
    def size(self) -> int:
        """Bytes of the batch so far, as received."""
        return self.handed_bytes + len(self.run.data)

    def take_piece(self) -> Run:
        """Return the frames of the newest piece, and begin the next piece of the same batch."""
        run, self.run = self.run, Run()
        self.handed_frames += len(run.lengths)
        self.handed_bytes += len(run.data)
        return run


class Cut(Enum):
    """Whether the newest piece is passed to the decoder."""

    NOTHING = auto()
    PIECE = auto()  # pass it on; the batch continues to fill
    BATCH = auto()  # pass it on; it is the last piece of its batch


def room(filling: Filling, limits: Limits) -> tuple[int, int]:
    """Return how many bytes and frames the next read may add; if either is 0 or less, the reader must wait."""
    size = min(PIECE_BYTES - len(filling.run.data), limits.max_bytes - filling.size)
    return size, limits.max_rows - filling.frames


def is_full(filling: Filling, limits: Limits) -> bool:
    """Tell whether the batch has reached a limit."""
    return filling.size >= limits.max_bytes or filling.frames >= limits.max_rows


def due_at(filling: Filling, limits: Limits, load: Load) -> float:
    """Return the clock at which the batch may end, in seconds; infinity if the batch is empty.

    With no batch in flight and a stream that is not busy, batches end one linger apart. A row waits at most that long
    for its batch to end; after an idle time it waits `_GATHER_S` at most.
    """
    if not filling.frames:
        return float("inf")
    apart_s = limits.linger_s * (1 + load.in_flight)
    late_s = min(load.lag_s * _SHARE_OF_LAG, _MAX_WAIT_S) if load.busy else 0.0
    return max(filling.begun_at + apart_s, filling.since + max(late_s, min(_GATHER_S, limits.linger_s)))


def decide_cut(filling: Filling, limits: Limits, load: Load, now: float, *, decoder_has_room: bool) -> Cut:
    """Decide whether the piece is passed on, and whether its batch ends.

    A batch ends when it is full or due, and if fewer than `max_in_flight` batches are in flight.
    """
    if not filling.frames or not decoder_has_room:
        return Cut.NOTHING
    due = is_full(filling, limits) or now >= due_at(filling, limits, load)
    if due and load.in_flight < limits.max_in_flight:
        return Cut.BATCH
    return Cut.PIECE if len(filling.run.data) >= PIECE_BYTES else Cut.NOTHING


class Intake:
    """State between socket and decoder: the batch that fills, undecoded pieces, and the delay of the newest rows."""

    def __init__(self, limits: Limits) -> None:
        """Start empty."""
        self.lag_s = 0.0
        self.limits = limits
        self._filling = Filling()
        self._undecoded = 0

    @property
    def run(self) -> Run:
        """Frames of the newest piece; the next read appends to them."""
        return self._filling.run

    @property
    def is_empty(self) -> bool:
        """Whether the batch that fills has no frame."""
        return not self._filling.frames

    def room(self) -> tuple[int, int]:
        """Return how many bytes and frames may be read; 0 while the batch or the decoder is full."""
        if not self._decoder_has_room() or is_full(self._filling, self.limits):
            return _NOTHING
        return room(self._filling, self.limits)

    def begin(self, now: float) -> None:
        """Set the time of the batch's first frame."""
        self._filling.since = now

    def due_at(self, load: Load) -> float:
        """Return the clock at which the batch may end, in seconds; infinity while no batch or piece may be added."""
        if load.in_flight >= self.limits.max_in_flight or not self._decoder_has_room():
            return float("inf")
        return due_at(self._filling, self.limits, load)

    def take_piece(self, load: Load, now: float, *, draining: bool) -> Piece | None:
        """Return the piece to decode now, or None; `draining` ends the batch at once."""
        cut = decide_cut(self._filling, self.limits, load, now, decoder_has_room=self._decoder_has_room())
        if draining and self._filling.frames:
            cut = Cut.BATCH
        if cut is Cut.NOTHING:
            return None
        piece = Piece(self._filling.take_piece(), ends_batch=cut is Cut.BATCH)
        if piece.ends_batch:
            self._filling = Filling(begun_at=now)
        self._undecoded += 1
        return piece

    def decoded(self, lag_s: float | None) -> None:
        """Note that a piece was decoded; `lag_s` is the age of its newest commit in seconds, None without a row."""
        self._undecoded -= 1
        self.lag_s = self.lag_s if lag_s is None else lag_s

    def _decoder_has_room(self) -> bool:
        return self._undecoded < _MAX_UNDECODED

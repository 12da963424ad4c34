"""Frames, one read after the other -> pieces, each of which becomes a batch.

Pure. Small when idle, for latency; large under load, for throughput and few parts: the more is in flight, the longer
a piece may fill. Frames are counted for rows, which they bound from above; they are not looked into here.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdc_reader.frame import Run


@dataclass(frozen=True, slots=True)
class Limits:
    """When a piece is full or old enough."""

    max_rows: int
    max_bytes: int
    linger_s: float
    max_in_flight: int


@dataclass(slots=True)
class Piece:
    """Frames that wait to be decoded together; `since` is the clock at the first of them, in seconds."""

    runs: list[bytearray] = field(default_factory=list)
    lengths: array[int] = field(default_factory=lambda: array("q"))
    size: int = 0
    since: float = 0.0

    def add(self, run: Run, now: float) -> None:
        """Append what one read gave."""
        if not run.lengths:
            return
        if not self.runs:
            self.since = now
        self.runs.append(run.data)
        self.lengths.extend(run.lengths)
        self.size += len(run.data)


def room(piece: Piece, limits: Limits) -> tuple[int, int]:
    """Return how many bytes and how many frames the piece may still take; 0 or less of either when it is full."""
    return limits.max_bytes - piece.size, limits.max_rows - len(piece.lengths)


def is_full(piece: Piece, limits: Limits) -> bool:
    """Tell whether the piece must not grow any more: the reader stops reading until it can be handed on."""
    return min(room(piece, limits)) <= 0


def due_at(piece: Piece, limits: Limits, in_flight: int) -> float:
    """Return the clock at which the piece is old enough, in seconds; infinity for an empty one."""
    return piece.since + limits.linger_s * (1 + in_flight) if piece.runs else float("inf")


def decide_cut(piece: Piece, limits: Limits, in_flight: int, now: float) -> bool:
    """Tell whether to hand the piece on: full or due, and there is room for one more."""
    if not piece.runs or in_flight >= limits.max_in_flight:
        return False
    return is_full(piece, limits) or now >= due_at(piece, limits, in_flight)

"""What was read and is not decoded yet -> whether to read more, and the piece that goes to the decoder now.

Pure, with state: the batch that fills, how many pieces the decoder has not taken in, and how late its newest rows were.
The decisions are cdc_reader/capture/batching.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.cdc_reader.capture.batching import Cut, Filling, Limits, Load, Piece, decide_cut, due_at, is_full, room

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.frame import Run

# What waits to be decoded is the largest thing in memory but for packed batches, so few pieces of it may.
_MAX_UNDECODED = 3
_NOTHING = (0, 0)


class Intake:
    """Between socket and decoder."""

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

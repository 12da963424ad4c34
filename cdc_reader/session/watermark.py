"""Pieces handed on, batches stored -> the position that the slot may confirm.

Pure. Pieces are remembered in stream order. The watermark moves over a piece when every batch of it is stored, and
then rests on the last commit in it (or on a keepalive behind that): the rows of a transaction that goes on in the
next piece are stored, but its commit is not passed. Only *stored* moves it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outhaul.sink.position import Lsn


@dataclass(slots=True)
class _Pending:
    batches: set[int]
    safe_lsn: Lsn | None
    decoded: bool = False


class Watermark:
    """The confirmed position and the pieces that lie ahead of it."""

    def __init__(self, confirmed: Lsn) -> None:
        """Start from what the slot has confirmed."""
        self.confirmed = confirmed
        self._pieces: deque[_Pending] = deque()
        self._undecoded: deque[_Pending] = deque()
        self._of_batch: dict[int, _Pending] = {}

    @property
    def in_flight(self) -> int:
        """Pieces from the oldest that is not wholly stored to the newest, stored ones between them included.

        Bounding this, and not the number of unstored batches, bounds also what a recovery has to ask for.
        """
        return len(self._pieces)

    @property
    def undecoded(self) -> int:
        """Pieces that were handed on and whose batches are not known yet."""
        return len(self._undecoded)

    def handed_on(self) -> None:
        """Note that a piece went to be decoded; its batches are not known yet."""
        pending = _Pending(set(), None)
        self._pieces.append(pending)
        self._undecoded.append(pending)

    def decoded(self, batches: list[int], safe_lsn: Lsn | None) -> None:
        """Note what the oldest undecoded piece held: its batches, and what is safe to confirm once they are stored."""
        pending = self._undecoded.popleft()
        pending.batches.update(batches)
        pending.safe_lsn = safe_lsn
        pending.decoded = True
        for batch in batches:
            self._of_batch[batch] = pending
        self._advance()

    def stored(self, batch: int) -> bool:
        """Note a stored batch; False when it is not in flight (reported twice, or of another life)."""
        pending = self._of_batch.pop(batch, None)
        if pending is None:
            return False
        pending.batches.discard(batch)
        self._advance()
        return True

    def _advance(self) -> None:
        while self._pieces and self._pieces[0].decoded and not self._pieces[0].batches:
            safe = self._pieces.popleft().safe_lsn
            if safe is not None and safe > self.confirmed:
                self.confirmed = safe

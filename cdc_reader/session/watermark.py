"""Groups of pieces passed to the decoder, batches stored -> the position that the slot may confirm.

Pure. A group has all pieces up to the end of a batch (cdc_reader/capture/batching.py); when it is decoded, it becomes
one or more batches for each table with new rows. Groups are kept in the order of the stream. When all batches of the
oldest group are stored, the watermark moves to the group's safe LSN: the end of its last commit, or a later keepalive.
If a transaction continues in the next group, its commit is not passed. Only *stored* moves the watermark.

Source: docs/adr/0001-clickhouse-is-the-checkpoint.md
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outhaul.sink.position import Lsn


@dataclass(slots=True)
class _Group:
    batches: set[int]
    safe_lsn: Lsn | None
    decoded: bool = False


class Watermark:
    """The confirmed position, and the groups after it."""

    def __init__(self, confirmed: Lsn) -> None:
        """Start at the position that the slot has confirmed."""
        self.confirmed = confirmed
        self._groups: deque[_Group] = deque()
        self._undecoded: deque[_Group] = deque()
        self._group_of: dict[int, _Group] = {}

    @property
    def in_flight(self) -> int:
        """Number of groups from the oldest that is not completely stored to the newest, including stored ones.

        A limit on this number also limits how many positions a recovery queries; one on unstored batches would not.
        """
        return len(self._groups)

    @property
    def undecoded(self) -> int:
        """Number of groups whose batches are not known yet."""
        return len(self._undecoded)

    def add_group(self) -> None:
        """Add a group that was passed to the decoder; its batches are not known yet."""
        group = _Group(set(), None)
        self._groups.append(group)
        self._undecoded.append(group)

    def decoded(self, batches: list[int], safe_lsn: Lsn | None) -> None:
        """Set the batches of the oldest undecoded group, and the LSN that may be confirmed when they are stored."""
        group = self._undecoded.popleft()
        group.batches.update(batches)
        group.safe_lsn = safe_lsn
        group.decoded = True
        for batch in batches:
            self._group_of[batch] = group
        self._advance()

    def stored(self, batch: int) -> bool:
        """Note a stored batch; return False if it is not in flight: reported twice, or of an earlier session."""
        group = self._group_of.pop(batch, None)
        if group is None:
            return False
        group.batches.discard(batch)
        self._advance()
        return True

    def _advance(self) -> None:
        while self._groups and self._groups[0].decoded and not self._groups[0].batches:
            safe = self._groups.popleft().safe_lsn
            if safe is not None and safe > self.confirmed:
                self.confirmed = safe

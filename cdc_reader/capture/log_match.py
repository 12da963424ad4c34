"""Positions that ClickHouse has stored, positions that the log brings -> does the log have all of the stored ones.

Pure. The log brings each stored position from the slot's confirmed one on again. If it passes one without a row there,
it is another log: the disk of the server was set back to a snapshot, and the server has written new events over the old
positions. Those of the new events that have a used position would be taken for stored.

Source: docs/adr/0001-clickhouse-is-the-checkpoint.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from outhaul.sink.position import NO_LSN, Lsn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from outhaul.cdc_reader.capture.stored_positions import StoredPositions

    Lsns = npt.NDArray[np.uint64]


class LogMatch:
    """Follows the stream of one table from the slot's confirmed position on."""

    def __init__(self, held: StoredPositions) -> None:
        """Expect the transactions of all stored positions."""
        self._due: Lsns = np.unique(held.lsn)

    def first_lacking(self, brought: Sequence[Lsns], passed: Lsn) -> Lsn:
        """Return the first stored position that the log has passed without a row there; NO_LSN if it has passed none.

        Args:
            brought: commit LSNs of the rows of the next piece.
            passed: LSN before which the log brings nothing more.
        """
        if not len(self._due):
            return NO_LSN
        found = np.unique(np.concatenate(brought)) if brought else np.empty(0, np.uint64)
        # Rows come in the order of their commits, so the log has passed all that is before the last one.
        end = max(int(passed), int(found[-1]) if len(found) else 0)
        self._due = np.setdiff1d(self._due, found, assume_unique=True)
        lacking = self._due[self._due < end]
        return Lsn(int(lacking[0])) if len(lacking) else NO_LSN

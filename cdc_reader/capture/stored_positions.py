"""Positions that ClickHouse has stored -> which rows of a batch to leave out.

Pure. Stored positions are runs of consecutive ordinals within one transaction, in order: a transaction of a million
rows is one run. All rows are looked up at once, by numbers that sort like (commit LSN, ordinal).

Source: docs/adr/0001-clickhouse-is-the-checkpoint.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.uint64]
    Flags = npt.NDArray[np.bool_]

# Transactions with stored rows are numbered from 0, so that number and ordinal fit into one 64-bit integer.
_ORDINAL_BITS = np.uint64(40)


@dataclass(frozen=True, slots=True)
class StoredPositions:
    """Runs of stored positions, sorted: commit LSN, first and last ordinal of each run."""

    lsn: Numbers
    first: Numbers
    last: Numbers

    @property
    def rows(self) -> int:
        """Number of stored positions."""
        return int((self.last - self.first).sum()) + len(self.lsn)

    def missing(self, lsn: Numbers, ordinal: Numbers) -> Flags:
        """Return a mask of the rows, given by commit LSN and ordinal, that ClickHouse has not stored."""
        if not len(self.lsn) or not len(lsn) or lsn[0] > self.lsn[-1]:
            return np.ones(len(lsn), np.bool_)
        transactions, number_of_run = np.unique(self.lsn, return_inverse=True)
        starts = _key(number_of_run.astype(np.uint64), self.first)
        ends = _key(number_of_run.astype(np.uint64), self.last)
        number = np.minimum(np.searchsorted(transactions, lsn), len(transactions) - 1).astype(np.uint64)
        key = _key(number, ordinal)
        run = np.searchsorted(starts, key, side="right").astype(np.int64) - 1
        held = (transactions[number] == lsn) & (run >= 0) & (key <= ends[np.maximum(run, 0)])
        missing: Flags = ~held
        return missing


NOTHING_STORED = StoredPositions(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint64))


def _key(number: Numbers, ordinal: Numbers) -> Numbers:
    return (number << _ORDINAL_BITS) | ordinal

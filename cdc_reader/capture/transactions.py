"""Begin and Commit messages of a piece, and what was open before -> the transaction of each message, and what is safe.

Pure. Positions come from here: the commit LSN of a row is its Begin's, and the ordinal counts rows of one table since
that Begin, whatever pieces the stream was cut into.

Source: https://www.postgresql.org/docs/current/protocol-logical-replication.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from outhaul.cdc_reader.capture.message import BEGIN, COMMIT, begins, commits
from outhaul.sink.errors import FrameError
from outhaul.sink.position import NO_LSN, Lsn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outhaul.cdc_reader.capture.frame import Bools, Frames, Ints, Lsns


@dataclass(frozen=True, slots=True)
class Open:
    """The last transaction begun; `rows` counts those captured so far, by ClickHouse table, while it is `running`."""

    commit_lsn: Lsn = NO_LSN
    committed_at_us: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    running: bool = False


@dataclass(frozen=True, slots=True)
class Transactions:
    """The transactions that a piece touches; number 0 is the one before its first Begin.

    `number[i]` is that of the last transaction begun up to message i, `running[i]` says whether one is open before
    message i; the last entry of `running` says it of the end of the piece. `commit_lsn` and `committed_at_us` go by
    number.
    """

    number: Ints
    running: Bools
    commit_lsn: Lsns
    committed_at_us: Ints
    commit_count: int
    safe_lsn: Lsn | None

    def after(self, rows: Mapping[str, int]) -> Open:
        """Return what the next piece starts in; `rows` counts the captured rows of the last transaction."""
        return Open(Lsn(int(self.commit_lsn[-1])), int(self.committed_at_us[-1]), rows, bool(self.running[-1]))


def follow(frames: Frames, before: Open) -> Transactions:
    """Follow the transactions through a piece.

    Raises:
        FrameError: they are nested, end where none is open, end as another than began, or go backwards.
    """
    is_begin, is_commit = frames.tags == BEGIN, frames.tags == COMMIT
    number = np.cumsum(is_begin)
    depth = np.concatenate(([0], number - np.cumsum(is_commit))) + before.running
    if (depth > 1).any():
        raise FrameError("a transaction begins inside another one")
    if (depth < 0).any():
        raise FrameError("a Commit came where no transaction was open")
    begun, ended = begins(frames, np.flatnonzero(is_begin)), commits(frames, np.flatnonzero(is_commit))
    commit_lsn = np.concatenate((np.array([before.commit_lsn], np.uint64), begun.commit_lsn))
    if (commit_lsn[1:] <= commit_lsn[:-1]).any():
        raise FrameError("commit LSNs go backwards")
    if (ended.commit_lsn != commit_lsn[number[is_commit]]).any():
        raise FrameError("a Commit belongs to another transaction than the one that is open")
    running = depth == 1
    return Transactions(
        number=number,
        running=running,
        commit_lsn=commit_lsn,
        committed_at_us=np.concatenate((np.array([before.committed_at_us], np.int64), begun.committed_at_us)),
        commit_count=len(ended.end_lsn),
        safe_lsn=_safe_lsn(frames, np.flatnonzero(is_commit), ended.end_lsn, running),
    )


def _safe_lsn(frames: Frames, commit_at: Ints, end_lsn: Lsns, running: Bools) -> Lsn | None:
    """Rest on the last commit's end, or on a keepalive after it; one inside a transaction may lie past rows to come."""
    idle = frames.keepalive_wal_end[~running[frames.keepalive_at]]
    if len(commit_at):
        later = frames.keepalive_at > commit_at[-1]
        idle = np.append(frames.keepalive_wal_end[later & ~running[frames.keepalive_at]], end_lsn[-1])
    return Lsn(int(np.max(idle))) if len(idle) else None


def ordinals(numbers: Ints, carried: int) -> Lsns:
    """Count the rows of one table within each transaction.

    Args:
        numbers: transaction number of each row, in stream order.
        carried: rows of transaction 0 in the pieces before.
    """
    place = np.arange(len(numbers))
    first = np.append(True, numbers[1:] != numbers[:-1])
    counted = place - np.maximum.accumulate(place * first)
    if carried:
        counted[numbers == 0] += carried
    return counted.astype(np.uint64)

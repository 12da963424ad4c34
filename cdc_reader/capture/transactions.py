"""Begin and Commit messages of a piece, and the open transaction -> the transaction of each message, and the safe LSN.

Pure. This file assigns positions: the commit LSN of a row is the one in its Begin, and the ordinal counts the rows of
one table since that Begin. Where the stream is cut into pieces does not matter.

Source: https://www.postgresql.org/docs/current/protocol-logical-replication.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from outhaul.cdc_reader.capture.pgoutput_messages import BEGIN, COMMIT, begins, commits
from outhaul.sink.errors import FrameError
from outhaul.sink.position import NO_LSN, Lsn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outhaul.cdc_reader.capture.frame import Bools, Frames, Ints, Lsns


@dataclass(frozen=True, slots=True)
class Open:
    """The transaction of the latest Begin; `running` until its Commit.

    `rows` is the number of its captured rows so far, by ClickHouse table.
    """

    commit_lsn: Lsn = NO_LSN
    committed_at_us: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    running: bool = False


@dataclass(frozen=True, slots=True)
class Transactions:
    """The transactions of a piece, by number; number 0 is the one that began before the piece.

    `number[i]` is the number of the latest transaction that began up to message i. `running[i]` is whether a
    transaction is open before message i; its last entry is for the end of the piece. `commit_lsn` and
    `committed_at_us` are indexed by number.
    """

    number: Ints
    running: Bools
    commit_lsn: Lsns
    committed_at_us: Ints
    commit_count: int
    safe_lsn: Lsn | None

    def after(self, rows: Mapping[str, int]) -> Open:
        """Return the state in which the next piece starts; `rows` counts the captured rows of the last transaction."""
        return Open(Lsn(int(self.commit_lsn[-1])), int(self.committed_at_us[-1]), rows, bool(self.running[-1]))


def follow(frames: Frames, before: Open) -> Transactions:
    """Assign the messages of a piece to their transactions.

    Raises:
        FrameError: transactions are nested or out of order, or a Commit does not belong to the open transaction.
    """
    is_begin, is_commit = frames.tags == BEGIN, frames.tags == COMMIT
    number = np.cumsum(is_begin)
    depth = np.concatenate(([0], number - np.cumsum(is_commit))) + before.running
    if (depth > 1).any():
        raise FrameError("a Begin was received while a transaction was open")
    if (depth < 0).any():
        raise FrameError("a Commit was received while no transaction was open")
    begun, ended = begins(frames, np.flatnonzero(is_begin)), commits(frames, np.flatnonzero(is_commit))
    commit_lsn = np.concatenate((np.array([before.commit_lsn], np.uint64), begun.commit_lsn))
    if (commit_lsn[1:] <= commit_lsn[:-1]).any():
        raise FrameError("commit LSNs go backwards")
    if (ended.commit_lsn != commit_lsn[number[is_commit]]).any():
        raise FrameError("a Commit belongs to another transaction than the open one")
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
    """Return the end of the last commit, or of a later keepalive outside of transactions, if that is higher.

    A keepalive inside a transaction proves nothing: its position may be past rows that are not received yet.
    """
    idle = frames.keepalive_wal_end[~running[frames.keepalive_at]]
    if len(commit_at):
        later = frames.keepalive_at > commit_at[-1]
        idle = np.append(frames.keepalive_wal_end[later & ~running[frames.keepalive_at]], end_lsn[-1])
    return Lsn(int(np.max(idle))) if len(idle) else None


def ordinals(numbers: Ints, carried: int) -> Lsns:
    """Return the ordinal of each row of one table within its transaction.

    Args:
        numbers: transaction number of each row, in stream order.
        carried: number of rows of transaction 0 in earlier pieces.
    """
    place = np.arange(len(numbers))
    first = np.append(True, numbers[1:] != numbers[:-1])
    counted = place - np.maximum.accumulate(place * first)
    if carried:
        counted[numbers == 0] += carried
    return counted.astype(np.uint64)

"""Which rows of the outbox are the table's share, and which the stream's: no row is both, none is neither.

Edge: Postgres' snapshots. There are two ways to draw the line:

- *at the creation of a slot*: Postgres exports the snapshot of that very moment. What it shows, the slot will never
  stream; what commits later, it will.
- *behind a running pipeline*: take a snapshot, mark the log after it, and wait until the slot has passed the mark. All
  that the snapshot shows has had its turn in the stream by then, and what ClickHouse lacks of it will not come.

The second needs no slot of its own, and can be drawn again after a crash.

Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.query import connect
from outhaul.cdc_reader.postgres.slot_view import confirmed_lsn
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.position import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Settings, Stream

# Records of the log begin at multiples of eight, so a position one below such a multiple is no commit's.
_ALIGNMENT = 8
_POLL_S = 0.1

_BEGIN: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_EXPORT: LiteralString = "SELECT pg_export_snapshot()"
# A few bytes, under a prefix that no publication can have; what was visible before them was written before them.
_MARK: LiteralString = "SELECT pg_logical_emit_message(false, 'outhaul mark', '')::text"


@dataclass(frozen=True, slots=True)
class Line:
    """A snapshot that is held open, by its name, and where in the log it lies."""

    dsn: str
    snapshot: str
    lsn: Lsn

    @property
    def copied_lsn(self) -> Lsn:
        """LSN that stands in the positions of rows that are copied from the table: no commit has it."""
        return copied_lsn(self.lsn)

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """Open a connection that sees the table's share, and nothing else.

        Raises:
            PipelineError: Postgres refuses or does not answer, or the snapshot is gone.
        """
        with connect(self.dsn) as conn:
            conn.execute(_BEGIN)
            # The statement takes no values; the name is Postgres' own.
            conn.execute(f"SET TRANSACTION SNAPSHOT '{self.snapshot}'")
            yield conn


def copied_lsn(lsn: Lsn) -> Lsn:
    """Return the LSN for copies under a line at `lsn`."""
    return Lsn(max(lsn // _ALIGNMENT * _ALIGNMENT, _ALIGNMENT) - 1)


@contextmanager
def behind_the_slot(
    streams: Sequence[Stream], *, within_s: float, waiting: Callable[[Lsn, Lsn], None] = lambda _at, _to: None
) -> Iterator[Line]:
    """Draw the line where the running pipeline is, and hold it.

    Args:
        streams: of one pipeline, at least one; each must pass what is committed now.
        within_s: how long each may take to pass what is committed now, in seconds.
        waiting: hears where the slot is, and where it has to come to.

    Raises:
        TransientError: the slot did not get there in time.
        FatalError: there is no such slot.
        PipelineError: Postgres refuses or does not answer.
    """
    settings = streams[0].settings
    dsn = settings.postgres_dsn.get_secret_value()
    with connect(dsn) as holder:
        holder.execute(_BEGIN)
        snapshot = holder.fetch_value(_EXPORT)
        with connect(dsn) as other:
            mark = Lsn.parse(other.fetch_value(_MARK))
        with connect_stream(settings) as other:
            for stream in streams:
                _wait_for_slot(other, stream.slot, mark, within_s, waiting)
        yield Line(dsn, snapshot, mark)


@contextmanager
def now(settings: Settings) -> Iterator[Line]:
    """Hold what is committed now, without a word about the stream: good for counting, not for copying.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    dsn = settings.postgres_dsn.get_secret_value()
    with connect(dsn) as holder:
        holder.execute(_BEGIN)
        snapshot = holder.fetch_value(_EXPORT)
        yield Line(dsn, snapshot, Lsn.parse(holder.fetch_value("SELECT pg_current_wal_insert_lsn()::text")))


def _wait_for_slot(
    conn: Connection,
    slot: str,
    mark: Lsn,
    within_s: float,
    waiting: Callable[[Lsn, Lsn], None],
) -> None:
    deadline = time.monotonic() + within_s
    while (at := confirmed_lsn(conn, slot)) < mark:
        if not at:
            raise FatalError(
                f"slot {slot!r} does not exist, so nothing says which rows the stream will bring",
                todo="Make it anew: `outhaul slot reset --recreate`",
                exit_code=Exit.SLOT_MISSING,
            )
        if time.monotonic() > deadline:
            raise TransientError(
                f"slot {slot!r} is at {at} and did not pass {mark} within {within_s:g} s, so rows that are "
                "not stored may still come by the stream",
                todo="Check `outhaul status`: the reader and a worker must run; or give it more time with --wait",
            )
        waiting(at, mark)
        time.sleep(_POLL_S)

"""A pipeline -> a line between the rows of the outbox that are the table's share and those that are the stream's.

Edge: Postgres' snapshots. Every row is on one side of the line. There are two ways to draw it:

- *when a slot is created*: Postgres exports the snapshot of exactly that moment. The slot will not stream any row that
  is visible in it, and will stream every row that is committed later.
- *behind a running pipeline*: take a snapshot, write a mark into the WAL, and wait until the slot has passed the mark.
  Then every visible row has been streamed or skipped, and if ClickHouse lacks it, the stream will not bring it.

The second way needs no slot of its own, and can be repeated after a crash.

Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.postgres import query
from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.slot_view import confirmed_lsn
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.position import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Settings, Stream

# WAL records begin at multiples of eight bytes, so no commit has a position one below such a multiple.
_ALIGNMENT = 8
_POLL_S = 0.1

_BEGIN: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_EXPORT: LiteralString = "SELECT pg_export_snapshot()"
# A message of a few bytes, with a prefix that cannot be captured. All rows visible before it are in the WAL before it.
_MARK: LiteralString = "SELECT pg_logical_emit_message(false, 'outhaul mark', '')::text"


@dataclass(frozen=True, slots=True)
class Line:
    """A snapshot that is held open, by its name, and its position in the WAL."""

    dsn: str
    snapshot: str
    lsn: Lsn

    @property
    def copied_lsn(self) -> Lsn:
        """LSN in the positions of rows that are copied from the table: no commit has it."""
        return copied_lsn(self.lsn)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a connection that sees the table's share, and no other rows.

        Raises:
            PipelineError: Postgres refuses or does not answer, or the snapshot is gone.
        """
        with query.connect(self.dsn) as conn:
            conn.begin_in(self.snapshot)
            yield conn


def copied_lsn(lsn: Lsn) -> Lsn:
    """Return the LSN in the positions of rows that are copied with a line at `lsn`."""
    return Lsn(max(lsn // _ALIGNMENT * _ALIGNMENT, _ALIGNMENT) - 1)


@contextmanager
def behind_the_slot(
    streams: Sequence[Stream], *, within_s: float, waiting: Callable[[Lsn, Lsn], None] = lambda _at, _to: None
) -> Iterator[Line]:
    """Draw the line behind a running pipeline, and hold its snapshot.

    Args:
        streams: streams of one pipeline, at least one; the slot of each must pass the mark.
        within_s: time limit for each slot, in seconds.
        waiting: called with the slot's position and the mark while this waits.

    Raises:
        TransientError: a slot did not pass the mark in time.
        FatalError: a slot does not exist.
        PipelineError: Postgres refuses or does not answer.
    """
    settings = streams[0].settings
    dsn = settings.postgres_dsn.get_secret_value()
    with query.connect(dsn) as holder:
        holder.execute(_BEGIN)
        snapshot = holder.fetch_value(_EXPORT)
        with query.connect(dsn) as other:
            mark = Lsn.parse(other.fetch_value(_MARK))
        with connect_stream(settings) as other:
            for stream in streams:
                _wait_for_slot(other, stream.slot, mark, within_s, waiting)
        yield Line(dsn, snapshot, mark)


@contextmanager
def now(settings: Settings) -> Iterator[Line]:
    """Hold a snapshot of the present moment, without waiting for the slot: for counting, not for copying.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    dsn = settings.postgres_dsn.get_secret_value()
    with query.connect(dsn) as holder:
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
                f"slot {slot!r} does not exist, so it is unknown which rows the stream will bring",
                todo="Create it: `outhaul slot reset --recreate`",
                exit_code=Exit.SLOT_MISSING,
            )
        if time.monotonic() > deadline:
            raise TransientError(
                f"slot {slot!r} is at {at} and did not pass {mark} within {within_s:g} s: the stream may still "
                "bring rows that are not stored yet",
                todo="Check `outhaul status`: the reader and a worker must run; or wait longer, with --wait",
            )
        waiting(at, mark)
        time.sleep(_POLL_S)

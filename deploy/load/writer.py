"""Transactions -> Postgres, over one connection, and a tally that is true whatever breaks.

Edge: psycopg. A connection that breaks while it commits leaves a doubt, and the table says what became of it. The
number of the transaction would not do: a server that crashed gives the number of one that was lost to another.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from outhaul.deploy.load.plan import Ending

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from outhaul import Event, Outbox
    from outhaul.deploy.load.pace import Pace
    from outhaul.deploy.load.plan import Transaction

_LOOK_S = 0.2
# Other writers have ids between those of a transaction, but not so many.
_NEAR = 1_000_000
_COLUMNS = "(event_type, environment, event_context)"


class How(StrEnum):
    """By which statement events are written."""

    MANY = "many"  # one statement for all of a transaction
    SINGLE = "single"  # an INSERT for each
    COPY = "copy"
    WAL = "wal"  # into the log alone, without the table


@dataclass(slots=True)
class Tally:
    """What became of a writer's transactions; `known` are events whose keys were there already, `bytes` of contexts."""

    events: int = 0
    transactions: int = 0
    rolled_back_events: int = 0
    rolled_back_transactions: int = 0
    known: int = 0
    unknown_events: int = 0
    bytes: int = 0
    reconnects: int = 0

    def add(self, other: Tally) -> None:
        """Add another writer's."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Writer:
    """Writes one transaction after the other."""

    def __init__(self, dsn: str, outbox: Outbox, how: How, reconnect_s: float) -> None:
        """Connect later; `reconnect_s` is how long a Postgres that is away is waited for."""
        self._dsn = dsn
        self._outbox = outbox
        self._how = how
        self._reconnect_s = reconnect_s
        self.tally = Tally()

    def run(self, work: Iterator[Transaction], pace: Pace, over: threading.Event) -> None:
        """Write until the work ends or it is over.

        Raises:
            psycopg.Error: Postgres refuses, or is away for too long.
            EventError: the table lacks what an event has.
        """
        conn = self._connect(over.wait)
        try:
            for transaction in work:
                if over.wait(pace.wait_s(len(transaction.events), time.monotonic())):
                    return
                while True:
                    try:
                        self._write(conn, transaction)
                        break
                    except psycopg.OperationalError:
                        # Nothing of it is there: it was not yet to be committed, or the server says that it was not.
                        conn = self._again(conn, over)
                        if over.is_set():
                            return
        finally:
            conn.close()

    def _write(self, conn: psycopg.Connection[Any], transaction: Transaction) -> None:
        events = transaction.events
        if transaction.ending is Ending.SAVEPOINT:
            conn.execute("SAVEPOINT load")
            self._emit(conn, events)
            conn.execute("ROLLBACK TO SAVEPOINT load")
        new = self._emit(conn, events)
        if transaction.ending is Ending.ROLLBACK:
            conn.rollback()
            self.tally.rolled_back_events += len(events)
            self.tally.rolled_back_transactions += 1
            return
        mark, process = self._mark(conn, events, new), conn.info.backend_pid
        try:
            conn.commit()
        except psycopg.OperationalError:
            is_there = self._is_there(mark, process)
            if is_there is None:
                # Written again, they might be there twice.
                self.tally.unknown_events += len(new)
                return
            if not is_there:
                raise
        self.tally.rolled_back_events += len(events) if transaction.ending is Ending.SAVEPOINT else 0
        self.tally.events += sum(new)
        self.tally.known += len(new) - sum(new)
        self.tally.transactions += 1
        self.tally.bytes += sum(len(event.context_json) for event, is_new in zip(events, new, strict=True) if is_new)

    def _emit(self, conn: psycopg.Connection[Any], events: list[Event]) -> list[bool]:
        match self._how:
            case How.SINGLE:
                return [self._outbox.emit(conn, event) for event in events]
            case How.COPY:
                with conn.cursor().copy(f"COPY {self._outbox.quoted} {_COLUMNS} FROM STDIN") as copy:
                    for event in events:
                        copy.write_row((event.type, event.environment, Jsonb(event.context)))
                return [True] * len(events)
            case _:
                return self._outbox.emit_many(conn, events)

    def _mark(self, conn: psycopg.Connection[Any], events: list[Event], new: list[bool]) -> tuple[int, str] | None:
        """Return what names the transaction: about which id its last event has, and its context."""
        last = next((event for event, is_new in zip(events[::-1], new[::-1], strict=True) if is_new), None)
        if last is None or self._how is How.WAL:
            return None
        row = conn.execute("SELECT currval(pg_get_serial_sequence(%s, 'id'))", [self._outbox.quoted]).fetchone()
        return (int(row[0]) if row else 0, last.context_json)

    def _is_there(self, mark: tuple[int, str] | None, process: int) -> bool | None:
        """Tell whether a transaction was committed; None where nobody can say."""
        if mark is None:
            return None if self._how is How.WAL else True
        last, context = mark
        try:
            # Also when it is over meanwhile: what is written is to be counted.
            with self._connect(_slept) as conn:
                if not self._has_ended(conn, process):
                    return None
                row = conn.execute(
                    f"SELECT EXISTS (SELECT FROM {self._outbox.quoted} "  # noqa: S608 - a quoted name
                    "WHERE id BETWEEN %s AND %s AND event_context = %s::jsonb)".encode(),
                    [last - _NEAR, last, context],
                ).fetchone()
        except psycopg.Error:
            return None
        return bool(row and row[0])

    def _has_ended(self, conn: psycopg.Connection[Any], process: int) -> bool:
        """Wait until the server's process that was to commit is gone: it may still be at it."""
        deadline = time.monotonic() + self._reconnect_s
        while conn.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [process]).fetchone() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return True

    def _again(self, conn: psycopg.Connection[Any], over: threading.Event) -> psycopg.Connection[Any]:
        with suppress(psycopg.Error):
            conn.close()
        self.tally.reconnects += 1
        return self._connect(over.wait)

    def _connect(self, wait: Callable[[float], bool]) -> psycopg.Connection[Any]:
        return patiently(lambda: psycopg.connect(self._dsn, connect_timeout=5), self._reconnect_s, wait)


def _slept(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def patiently(
    connect: Callable[[], psycopg.Connection[Any]], patience_s: float, wait: Callable[[float], bool]
) -> psycopg.Connection[Any]:
    """Connect, and try again for so long; `wait` returns true when it is over.

    Raises:
        psycopg.OperationalError: the last attempt's.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return connect()
        except psycopg.OperationalError:
            if time.monotonic() > deadline or wait(_LOOK_S):
                raise

"""Transactions -> events in Postgres, over one connection, and a tally that stays exact when the connection breaks.

Edge: psycopg. If the connection breaks during a commit, the outcome is unknown. The writer then looks for the events in
the table. It does not use the transaction id: after a crash, the server may assign the id of a lost transaction again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from outhaul.deploy.load.transaction_plan import Ending

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from outhaul import Event, Outbox
    from outhaul.deploy.load.pace import Pace
    from outhaul.deploy.load.transaction_plan import Transaction

_LOOK_S = 0.2
# Other writers' ids may lie between the ids of a transaction, but fewer than this.
_NEAR = 1_000_000
_COLUMNS = "(event_type, environment, event_context)"


class How(StrEnum):
    """Which statements write the events."""

    MANY = "many"  # one INSERT for a transaction
    SINGLE = "single"  # one INSERT for an event
    COPY = "copy"
    WAL = "wal"  # logical messages, only in Postgres' log


@dataclass(slots=True)
class Tally:
    """Counts of a writer's transactions.

    `known` events were ignored, since their keys existed. The commit of `unknown_events` may have failed. `bytes` is
    the size of the committed contexts.
    """

    events: int = 0
    transactions: int = 0
    rolled_back_events: int = 0
    rolled_back_transactions: int = 0
    known: int = 0
    unknown_events: int = 0
    bytes: int = 0
    reconnects: int = 0

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Writer:
    """Writes transactions over one connection."""

    def __init__(self, dsn: str, outbox: Outbox, how: How, reconnect_s: float) -> None:
        """Store the arguments; `run` connects, and waits up to `reconnect_s` seconds for a Postgres that is down."""
        self._dsn = dsn
        self._outbox = outbox
        self._how = how
        self._reconnect_s = reconnect_s
        self.tally = Tally()

    def run(self, transactions: Iterator[Transaction], pace: Pace, stop: threading.Event) -> None:
        """Write the transactions, until all are written or `stop` is set.

        Raises:
            psycopg.Error: Postgres refused a statement, or was down for longer than `reconnect_s`.
            EventError: the table has no column for a part of an event.
        """
        conn = self._connect(stop.wait)
        try:
            for transaction in transactions:
                if stop.wait(pace.wait_s(len(transaction.events), time.monotonic())):
                    return
                while True:
                    try:
                        self._write(conn, transaction)
                        break
                    except psycopg.OperationalError:
                        # The transaction is not committed: the commit was not sent, or the table has no such events.
                        conn = self._reconnect(conn, stop)
                        if stop.is_set():
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
            is_committed = self._is_committed(mark, process)
            if is_committed is None:
                # The events are not written again, since they could then be stored twice.
                self.tally.unknown_events += len(new)
                return
            if not is_committed:
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
        """Return the approximate id of the transaction's last new event, and its context; None if there are no rows."""
        last = next((event for event, is_new in zip(events[::-1], new[::-1], strict=True) if is_new), None)
        if last is None or self._how is How.WAL:
            return None
        row = conn.execute("SELECT currval(pg_get_serial_sequence(%s, 'id'))", [self._outbox.quoted]).fetchone()
        return (int(row[0]) if row else 0, last.context_json)

    def _is_committed(self, mark: tuple[int, str] | None, process: int) -> bool | None:
        """Return whether a transaction was committed; None if that cannot be found out."""
        if mark is None:
            return None if self._how is How.WAL else True
        last, context = mark
        try:
            # `stop` does not end this wait, since the tally must count the events.
            with self._connect(_sleep) as conn:
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
        """Wait until the server's process of the commit has ended, since it may still commit; return whether it has."""
        deadline = time.monotonic() + self._reconnect_s
        while conn.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [process]).fetchone() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return True

    def _reconnect(self, conn: psycopg.Connection[Any], stop: threading.Event) -> psycopg.Connection[Any]:
        with suppress(psycopg.Error):
            conn.close()
        self.tally.reconnects += 1
        return self._connect(stop.wait)

    def _connect(self, wait: Callable[[float], bool]) -> psycopg.Connection[Any]:
        return connect_with_retries(lambda: psycopg.connect(self._dsn, connect_timeout=5), self._reconnect_s, wait)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def connect_with_retries(
    connect: Callable[[], psycopg.Connection[Any]], timeout_s: float, wait: Callable[[float], bool]
) -> psycopg.Connection[Any]:
    """Call `connect` until it succeeds, for at most `timeout_s`; `wait` sleeps, and returns True to give up.

    Raises:
        psycopg.OperationalError: the last attempt failed.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return connect()
        except psycopg.OperationalError:
            if time.monotonic() > deadline or wait(_LOOK_S):
                raise

"""Events -> rows of the outbox, inside the caller's transaction.

Edge: psycopg 3, on the caller's connection, which may wait or await. Nothing is committed here, ever: the events stand
or fall with the business change. The connection's own cursor and row factories are left alone.

Source: https://www.psycopg.org/psycopg3/docs/basic/transactions.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from outhaul.errors import EventError
from outhaul.statement import Shape, Target, writing
from outhaul.trace import running_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outhaul.event import Event

# By connection and not by address: a connection has its own search path, and a new one sees what was altered.
_known: WeakKeyDictionary[Connection[Any] | AsyncConnection[Any], dict[str, Shape]] = WeakKeyDictionary()


class Outbox(Target):
    """An outbox, made once by an app whose table has another name or whose events are all of one environment."""

    __slots__ = ()

    def emit(self, conn: Connection[Any], event: Event) -> bool:
        """Write one event in the transaction that `conn` is in; return False when its key is there already.

        Raises:
            EventError: `conn` is in no transaction, so the event would stand alone; or the table has no column for what
                the event has. Nothing was sent, the transaction goes on.
            psycopg.Error: Postgres refuses it.
        """
        return self.emit_many(conn, [event])[0]

    def emit_many(self, conn: Connection[Any], events: Iterable[Event]) -> list[bool]:
        """Write events in few statements; return for each whether it is new: of one key the first that ever came.

        Raises:
            EventError: as `emit`; then none of them is written.
            psycopg.Error: Postgres refuses one of them.
        """
        if not isinstance(conn, Connection):
            raise EventError(f"emit needs a psycopg Connection, got {type(conn).__name__}: {_other_door(conn)}")
        if conn.autocommit and _is_unclear(conn):
            with conn.pipeline():
                """Leaving it waits for what was sent."""
        _check_transaction(conn)
        work = writing(events, self, _known.setdefault(conn, {}), running_traceparent(), is_unicode=_is_unicode(conn))
        cursor = Cursor(conn, row_factory=tuple_row)
        try:
            query = next(work)
            while True:
                cursor.execute(query.sql, query.parameters)
                query = work.send(cursor.fetchall() if query.returns else [])
        except StopIteration as end:
            return list(end.value)

    async def emit_async(self, conn: AsyncConnection[Any], event: Event) -> bool:
        """Do what `emit` does."""
        return (await self.emit_many_async(conn, [event]))[0]

    async def emit_many_async(self, conn: AsyncConnection[Any], events: Iterable[Event]) -> list[bool]:
        """Do what `emit_many` does."""
        if not isinstance(conn, AsyncConnection):
            raise EventError(f"emit_async needs a psycopg AsyncConnection, got {type(conn).__name__}")
        if conn.autocommit and _is_unclear(conn):
            async with conn.pipeline():
                """Leaving it waits for what was sent."""
        _check_transaction(conn)
        work = writing(events, self, _known.setdefault(conn, {}), running_traceparent(), is_unicode=_is_unicode(conn))
        cursor = AsyncCursor(conn, row_factory=tuple_row)
        try:
            query = next(work)
            while True:
                await cursor.execute(query.sql, query.parameters)
                query = work.send(await cursor.fetchall() if query.returns else [])
        except StopIteration as end:
            return list(end.value)


_default = Outbox()
emit = _default.emit
emit_many = _default.emit_many
emit_async = _default.emit_async
emit_many_async = _default.emit_many_async


def _is_unclear(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Tell whether what was sent, and not yet answered, may or may not have begun a transaction."""
    is_pipeline = conn.pgconn.pipeline_status != PipelineStatus.OFF
    return is_pipeline and conn.info.transaction_status == TransactionStatus.ACTIVE


def _check_transaction(conn: Connection[Any] | AsyncConnection[Any]) -> None:
    if conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE:
        raise EventError(
            "emit needs the transaction of the business change: use `with conn.transaction():` around both"
        )


def _is_unicode(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    # Under SQL_ASCII, psycopg sends UTF-8, too.
    return conn.info.encoding in {"utf-8", "ascii"}


def _other_door(conn: object) -> str:
    if isinstance(conn, AsyncConnection):
        return "use `await emit_async(…)`"
    return "for SQLAlchemy use outhaul.sqlalchemy"

"""Events -> rows of the outbox, inside the caller's transaction.

Edge: psycopg 3, on the caller's connection, sync or async. This file never commits: the events commit or roll back with
the business change. The connection's cursor factory and row factory are not used and not changed.

Source: https://www.psycopg.org/psycopg3/docs/basic/transactions.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row

from outhaul.errors import EventError
from outhaul.statement import Shape, Target, write_events
from outhaul.traceparent import running_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outhaul.event import Event

# The shapes are cached for each connection: each connection has its own search path, and a new connection sees altered
# tables.
_shapes: WeakKeyDictionary[Connection[Any] | AsyncConnection[Any], dict[str, Shape]] = WeakKeyDictionary()


class Outbox(Target):
    """An outbox with settings of its own: make it once, if your table has another name or events share an environment.

    Raises:
        EventError: a setting is invalid.
    """

    __slots__ = ()

    def emit(self, conn: Connection[Any], event: Event) -> bool:
        """Write one event in the current transaction of `conn`; return False if its key already exists.

        Raises:
            EventError: `conn` is not in a transaction, or the table has no column for a part of the event. Nothing was
                written; the transaction stays usable.
            psycopg.Error: Postgres refused the statement.
        """
        return self.emit_many(conn, [event])[0]

    def emit_many(self, conn: Connection[Any], events: Iterable[Event]) -> list[bool]:
        """Write events in few statements; return for each event whether it is new.

        An event is new if it has no key, or if its key is neither in the table nor in an earlier event of the call.

        Raises:
            EventError: as for `emit`; then no event was written.
            psycopg.Error: Postgres refused a statement.
        """
        if not isinstance(conn, Connection):
            raise EventError(f"emit needs a psycopg Connection, got {type(conn).__name__}: {_advice(conn)}")
        if conn.autocommit and _may_have_begun(conn):
            with conn.pipeline():
                """Leaving the pipeline waits for the answers to all statements that were sent."""
        _check_transaction(conn)
        shapes = _shapes.setdefault(conn, {})
        queries = write_events(events, self, shapes, running_traceparent(), is_unicode=_is_unicode(conn))
        cursor = Cursor(conn, row_factory=tuple_row)
        try:
            query = next(queries)
            while True:
                cursor.execute(query.sql, query.parameters)
                query = queries.send(cursor.fetchall() if query.returns else [])
        except StopIteration as end:
            return list(end.value)

    async def emit_async(self, conn: AsyncConnection[Any], event: Event) -> bool:
        """Do the same as `emit` on an async connection."""
        return (await self.emit_many_async(conn, [event]))[0]

    async def emit_many_async(self, conn: AsyncConnection[Any], events: Iterable[Event]) -> list[bool]:
        """Do the same as `emit_many` on an async connection."""
        if not isinstance(conn, AsyncConnection):
            raise EventError(f"emit_async needs a psycopg AsyncConnection, got {type(conn).__name__}")
        if conn.autocommit and _may_have_begun(conn):
            async with conn.pipeline():
                """Leaving the pipeline waits for the answers to all statements that were sent."""
        _check_transaction(conn)
        shapes = _shapes.setdefault(conn, {})
        queries = write_events(events, self, shapes, running_traceparent(), is_unicode=_is_unicode(conn))
        cursor = AsyncCursor(conn, row_factory=tuple_row)
        try:
            query = next(queries)
            while True:
                await cursor.execute(query.sql, query.parameters)
                query = queries.send(await cursor.fetchall() if query.returns else [])
        except StopIteration as end:
            return list(end.value)


_default = Outbox()
emit = _default.emit
emit_many = _default.emit_many
emit_async = _default.emit_async
emit_many_async = _default.emit_many_async


def _may_have_begun(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Return whether a statement without an answer so far may have begun a transaction."""
    is_pipeline = conn.pgconn.pipeline_status != PipelineStatus.OFF
    return is_pipeline and conn.info.transaction_status == TransactionStatus.ACTIVE


def _check_transaction(conn: Connection[Any] | AsyncConnection[Any]) -> None:
    if conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE:
        raise EventError(
            "emit needs the transaction of the business change: use `with conn.transaction():` around both"
        )


def _is_unicode(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    # psycopg also sends UTF-8 if the encoding is SQL_ASCII.
    return conn.info.encoding in {"utf-8", "ascii"}


def _advice(conn: object) -> str:
    if isinstance(conn, AsyncConnection):
        return "use `await emit_async(…)`"
    return "for SQLAlchemy use outhaul.sqlalchemy"

"""Events -> rows of the outbox, in the transaction of a SQLAlchemy session or connection; and the outbox as a table.

Edge: SQLAlchemy 2, on the caller's session; any driver for PostgreSQL. Nothing is committed here, ever.

A session is flushed first, unless its autoflush is off: what is pending stands before the event, and where it cannot be
written there is no event. The event itself is written at once, by the same statements as elsewhere, and not when the
session is flushed next: so one knows whether its key was new, and a thousand events are one statement.

Source: https://docs.sqlalchemy.org/en/20/orm/session_basics.html#flushing
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import Connection
from sqlalchemy.orm import Session, scoped_session

from outhaul.errors import EventError
from outhaul.event import Event
from outhaul.orm import OutboxEventMixin, outbox_table
from outhaul.statement import Shape, Target, writing
from outhaul.trace import running_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

    Door: TypeAlias = Session | scoped_session[Any] | Connection
    AsyncDoor: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection

__all__ = [
    "Event",
    "EventError",
    "Outbox",
    "OutboxEventMixin",
    "emit",
    "emit_async",
    "emit_many",
    "emit_many_async",
    "outbox_table",
]

_KNOWN = "outhaul.shapes"


class Outbox(Target):
    """An outbox, made once by an app whose table has another name or whose events are all of one environment."""

    __slots__ = ()

    def emit(self, session: Door, event: Event) -> bool:
        """Write one event in the transaction of a session or connection; return False when its key is there already.

        Of a session with several engines, pass the connection: `session.connection(bind_arguments=…)`.

        Raises:
            EventError: the connection is in autocommit mode, so the event would stand alone; or the table has no column
                for what the event has. Nothing was sent, the transaction goes on.
            sqlalchemy.exc.SQLAlchemyError: Postgres refuses it, or what was pending in the session.
        """
        return self.emit_many(session, [event])[0]

    def emit_many(self, session: Door, events: Iterable[Event]) -> list[bool]:
        """Write events in few statements; return for each whether it is new: of one key the first that ever came.

        Raises:
            EventError: as `emit`; then none of them is written.
            sqlalchemy.exc.SQLAlchemyError: Postgres refuses one of them, or what was pending in the session.
        """
        conn = _connection(session)
        _check_transaction(conn)
        # Of the driver's connection, for as long as that is in the pool.
        known: dict[str, Shape] = conn.info.setdefault(_KNOWN, {})
        work = writing(events, self, known, running_traceparent())
        try:
            query = next(work)
            while True:
                result = conn.exec_driver_sql(_of_driver(query.sql, conn, len(query.parameters)), query.parameters)
                query = work.send(list(result) if query.returns else [])
        except StopIteration as end:
            return list(end.value)

    async def emit_async(self, session: AsyncDoor, event: Event) -> bool:
        """Do what `emit` does."""
        return (await self.emit_many_async(session, [event]))[0]

    async def emit_many_async(self, session: AsyncDoor, events: Iterable[Event]) -> list[bool]:
        """Do what `emit_many` does."""
        if not hasattr(session, "run_sync"):
            raise EventError(f"emit_async needs an AsyncSession or AsyncConnection, got {type(session).__name__}")
        return await session.run_sync(self.emit_many, events)


_default = Outbox()
emit = _default.emit
emit_many = _default.emit_many
emit_async = _default.emit_async
emit_many_async = _default.emit_many_async


def _connection(session: Door) -> Connection:
    if isinstance(session, Connection):
        return session
    if isinstance(session, scoped_session):
        session = session()
    if not isinstance(session, Session):
        door = "use `await emit_async(…)`" if hasattr(session, "run_sync") else "for psycopg use producer.emit"
        raise EventError(f"emit needs a Session or a Connection, got {type(session).__name__}: {door}")
    # An event that a listener emits in the middle of a flush is part of that.
    if session.autoflush and not session._flushing:  # noqa: SLF001 - there is no other way to know
        session.flush()
    return session.connection()


def _check_transaction(conn: Connection) -> None:
    if getattr(conn.connection.dbapi_connection, "autocommit", False):
        raise EventError("emit needs the transaction of the business change, and this connection is in autocommit mode")


def _of_driver(sql: str, conn: Connection, parameters: int) -> str:
    if conn.dialect.paramstyle in {"format", "pyformat"}:
        return sql
    return sql % tuple(f"${number}" for number in range(1, parameters + 1))

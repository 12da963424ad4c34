"""Events -> rows of the outbox, in the transaction of a SQLAlchemy session or connection.

Edge: SQLAlchemy 2, on the caller's session, with any driver for PostgreSQL. This file never commits.

`emit` first flushes the session, unless its autoflush is off. So the pending changes are written before the event; if
they fail, the event is not written. `emit` then writes the event at once and does not wait for the next flush. So it
can return whether the key is new, and a thousand events need one statement.

Source: https://docs.sqlalchemy.org/en/20/orm/session_basics.html#flushing
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

try:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, scoped_session
except ImportError as error:
    raise ImportError(f"outhaul.sqlalchemy needs SQLAlchemy: pip install 'outhaul[sqlalchemy]' ({error})") from error

from outhaul.errors import EventError
from outhaul.event import Event
from outhaul.sqlalchemy_models import OutboxEventMixin, outbox_table
from outhaul.statement import Shape, Target, write_events
from outhaul.traceparent import running_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

    AnySession: TypeAlias = Session | scoped_session[Any] | Connection
    AnyAsyncSession: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection

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

_SHAPES = "outhaul.shapes"


class Outbox(Target):
    """An outbox with settings of its own: make it once, if your table has another name or events share an environment.

    Raises:
        EventError: a setting is invalid.
    """

    __slots__ = ()

    def emit(self, session: AnySession, event: Event) -> bool:
        """Write one event in the transaction of a session or connection; return False if its key already exists.

        If the session has several engines, pass the connection: `session.connection(bind_arguments=…)`.

        Raises:
            EventError: the connection is in autocommit mode, or the table has no column for a part of the event. The
                event was not written; the transaction stays usable.
            sqlalchemy.exc.SQLAlchemyError: Postgres refused the event or a pending change of the session.
        """
        return self.emit_many(session, [event])[0]

    def emit_many(self, session: AnySession, events: Iterable[Event]) -> list[bool]:
        """Write events in few statements; return for each event whether it is new.

        An event is new if it has no key, or if its key is neither in the table nor in an earlier event of the call.

        Raises:
            EventError: as for `emit`; then no event was written.
            sqlalchemy.exc.SQLAlchemyError: Postgres refused an event or a pending change of the session.
        """
        conn = _connection(session)
        _check_transaction(conn)
        # `info` belongs to the driver's connection and lasts as long as that connection is in the pool.
        shapes: dict[str, Shape] = conn.info.setdefault(_SHAPES, {})
        queries = write_events(events, self, shapes, running_traceparent())
        try:
            query = next(queries)
            while True:
                result = conn.exec_driver_sql(_driver_sql(query.sql, conn, len(query.parameters)), query.parameters)
                query = queries.send(list(result) if query.returns else [])
        except StopIteration as end:
            return list(end.value)

    async def emit_async(self, session: AnyAsyncSession, event: Event) -> bool:
        """Do the same as `emit` on an async session or connection."""
        return (await self.emit_many_async(session, [event]))[0]

    async def emit_many_async(self, session: AnyAsyncSession, events: Iterable[Event]) -> list[bool]:
        """Do the same as `emit_many` on an async session or connection."""
        if not hasattr(session, "run_sync"):
            raise EventError(f"emit_async needs an AsyncSession or AsyncConnection, got {type(session).__name__}")
        return await session.run_sync(self.emit_many, events)


_default = Outbox()
emit = _default.emit
emit_many = _default.emit_many
emit_async = _default.emit_async
emit_many_async = _default.emit_many_async


def _connection(session: AnySession) -> Connection:
    if isinstance(session, Connection):
        return session
    if isinstance(session, scoped_session):
        session = session()
    if not isinstance(session, Session):
        advice = "use `await emit_async(…)`" if hasattr(session, "run_sync") else "for psycopg use outhaul.emit"
        raise EventError(f"emit needs a Session or a Connection, got {type(session).__name__}: {advice}")
    # A listener may emit an event during a flush. That flush must not start a second one.
    if session.autoflush and not session._flushing:  # noqa: SLF001 - SQLAlchemy has no public attribute for this
        session.flush()
    return session.connection()


def _check_transaction(conn: Connection) -> None:
    if getattr(conn.connection.dbapi_connection, "autocommit", False):
        raise EventError("emit needs the transaction of the business change, and this connection is in autocommit mode")


def _driver_sql(sql: str, conn: Connection, parameters: int) -> str:
    if conn.dialect.paramstyle in {"format", "pyformat"}:
        return sql
    return sql % tuple(f"${number}" for number in range(1, parameters + 1))

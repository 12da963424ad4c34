"""Events -> rows of the outbox, inside the caller's transaction.

Edge: psycopg 3, on the caller's connection. Nothing is committed here, ever: the events stand or fall with the business change.

Source: https://www.psycopg.org/psycopg3/docs/basic/transactions.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.pq import TransactionStatus

from producer.event import Event, EventError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

_INSERT = """
    INSERT INTO outbox (event_type, event_date_time, environment, event_context, metadata_version, event_key)
    SELECT type, coalesce(at, now()), environment, context::jsonb, version, key
    FROM unnest(%s::text[], %s::timestamptz[], %s::text[], %s::text[], %s::bigint[], %s::text[])
         AS event (type, at, environment, context, version, key)
    ON CONFLICT (event_key) DO NOTHING
    RETURNING id"""


def emit(conn: Connection[Any], event: Event) -> bool:
    """Write one event in the transaction that `conn` is in; return False when its key is there already.

    Raises:
        EventError: `conn` is in autocommit mode and outside a transaction, so the event would stand alone.
        psycopg.Error: Postgres refuses it.
    """
    return emit_many(conn, [event]) == 1


def emit_many(conn: Connection[Any], events: Iterable[Event]) -> int:
    """Write events in one statement; return how many were new.

    Raises:
        EventError: `conn` is in autocommit mode and outside a transaction.
        psycopg.Error: Postgres refuses one of them.
    """
    if conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE:
        raise EventError("emit needs the transaction of the business change: use `with conn.transaction():` around both")
    rows = list(events)
    if not rows:
        return 0
    columns = [
        [event.type for event in rows],
        [event.at for event in rows],
        [event.environment for event in rows],
        [event.context_json for event in rows],
        [event.version for event in rows],
        [event.key for event in rows],
    ]
    with conn.cursor() as cursor:
        cursor.execute(_INSERT, columns)
        return cursor.rowcount

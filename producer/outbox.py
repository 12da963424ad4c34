"""Events -> rows of the outbox, inside the caller's transaction.

Edge: psycopg 3, on the caller's connection. Nothing is committed here, ever: the events stand or fall with the
business change.

Source: https://www.psycopg.org/psycopg3/docs/basic/transactions.html
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from psycopg.pq import TransactionStatus

from producer.event import Event, EventError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

# One JSON parameter for all events: an array for each column would be escaped value by value, which takes ten times
# as long.
_INSERT = """
    INSERT INTO outbox (event_type, event_date_time, environment, event_context, metadata_version, event_key)
    SELECT type, coalesce(at, now()), environment, context, version, key
    FROM json_to_recordset(%s::json)
         AS event (type text, at timestamptz, environment text, context jsonb, version bigint, key text)
    ON CONFLICT (event_key) DO NOTHING"""


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
        raise EventError(
            "emit needs the transaction of the business change: use `with conn.transaction():` around both"
        )
    rows = list(events)
    if not rows:
        return 0
    with conn.cursor() as cursor:
        cursor.execute(_INSERT, ["[" + ",".join(map(_as_json, rows)) + "]"])
        return cursor.rowcount


def _as_json(event: Event) -> str:
    at = None if event.at is None else event.at.isoformat()
    parts = json.dumps(
        {"type": event.type, "at": at, "environment": event.environment, "version": event.version, "key": event.key}
    )
    # The context is JSON already; taken apart and put together again it could change.
    return f'{parts[:-1]}, "context": {event.context_json}}}'

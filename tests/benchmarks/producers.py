"""How long an app waits for its events: `emit_many` beside a loop of single INSERTs, in the same run.

`python -m tests.benchmarks.producers DSN` writes to a table of its own in that database, and drops it.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from outhaul import Event, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS, ROUNDS = 10_000, 5
TABLE = "outbox_of_a_benchmark"
CONTEXT = {"user_id": 42, "text": "x" * 150}
INSERT = f"INSERT INTO {TABLE} (event_type, environment, event_context) VALUES (%s, %s, %s)"


def one_by_one(conn: psycopg.Connection[Any]) -> None:
    for _ in range(EVENTS):
        conn.execute(INSERT, ["counted", "test", Jsonb(CONTEXT)])


def all_at_once(conn: psycopg.Connection[Any]) -> None:
    Outbox(table=TABLE).emit_many(conn, (Event("counted", CONTEXT, environment="test") for _ in range(EVENTS)))


def with_keys(conn: psycopg.Connection[Any]) -> None:
    events = (Event("counted", CONTEXT, environment="test", key=str(number)) for number in range(EVENTS))
    Outbox(table=TABLE).emit_many(conn, events)


def into_the_log(conn: psycopg.Connection[Any]) -> None:
    events = (Event("counted", CONTEXT, environment="test") for _ in range(EVENTS))
    Outbox(via="wal", publication="nobody").emit_many(conn, events)


def seconds(write: Callable[[psycopg.Connection[Any]], None], dsn: str) -> float:
    """Return how long a transaction of all events takes, its commit included."""
    with psycopg.connect(dsn) as conn:
        conn.execute(f"TRUNCATE {TABLE}")
        conn.commit()
        begun_at = time.perf_counter()
        write(conn)
        conn.commit()
        return time.perf_counter() - begun_at


def main(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            f"CREATE TABLE {TABLE} (id bigserial PRIMARY KEY, event_type varchar(255) NOT NULL, "
            "event_date_time timestamptz DEFAULT now(), environment varchar(255) NOT NULL, "
            "event_context jsonb NOT NULL, metadata_version bigint DEFAULT 1, event_key text UNIQUE)"
        )
    try:
        ways = (one_by_one, all_at_once, with_keys, into_the_log)
        rounds = [{way.__name__: seconds(way, dsn) for way in ways} for _ in range(ROUNDS)]
    finally:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(f"DROP TABLE {TABLE}")
    found = {
        way.__name__: {
            "seconds": round(median(one[way.__name__] for one in rounds), 3),
            "times_one_by_one": round(median(one["one_by_one"] / one[way.__name__] for one in rounds), 1),
        }
        for way in ways
    }
    print(json.dumps({"events": EVENTS, "rounds": ROUNDS} | found, indent=2))


if __name__ == "__main__":
    main(sys.argv[1])

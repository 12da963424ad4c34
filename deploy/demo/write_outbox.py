"""Events -> rows of the outbox, in transactions like those of apps: many small, some large, some rolled back.

Edge: psycopg. Every event is committed once. After a rollback, the next transaction writes the same events again, as an
app does that repeats a failed request. A fixed seed gives the same sizes and rollbacks in every run.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from outhaul import Event, emit_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SEED = 2013
# Sizes of transactions, with the weight of each.
_SIZES = {1: 40, 5: 20, 50: 15, 500: 15, 2000: 8, 10_000: 2}
_ROLLBACK_SHARE = 0.05
# The share of small transactions that use one plain INSERT for each row, as apps in any language may.
_PLAIN_SQL_SHARE = 0.2
_PLAIN_SQL_MAX = 50

_PLAIN_SQL = """
    INSERT INTO outbox (event_type, event_date_time, environment, event_context)
    VALUES (%s, %s, %s, %s::jsonb)"""


@dataclass(slots=True)
class Written:
    """What was written: events committed, events rolled back, and the number of transactions of each kind."""

    committed: int = 0
    rolled_back: int = 0
    commits: int = 0
    rollbacks: int = 0


def replay(dsn: str, events: Iterable[Event], progress: Callable[[int], None]) -> Written:
    """Write all events; `progress` is called with the number of committed events after each commit.

    Raises:
        psycopg.Error: Postgres refused a statement.
    """
    rng = random.Random(_SEED)  # noqa: S311 - reproducible on purpose
    sizes, weights = zip(*_SIZES.items(), strict=True)
    written = Written()
    source = iter(events)
    with psycopg.connect(dsn) as conn:
        while chunk := list(itertools.islice(source, rng.choices(sizes, weights)[0])):
            if not written.rollbacks or rng.random() < _ROLLBACK_SHARE:
                _write(conn, chunk, plain=False)
                conn.rollback()
                written.rolled_back += len(chunk)
                written.rollbacks += 1
            _write(conn, chunk, plain=rng.random() < _PLAIN_SQL_SHARE and len(chunk) <= _PLAIN_SQL_MAX)
            conn.commit()
            written.committed += len(chunk)
            written.commits += 1
            progress(written.committed)
    return written


def _write(conn: psycopg.Connection, chunk: list[Event], *, plain: bool) -> None:
    if plain:
        for event in chunk:
            conn.execute(_PLAIN_SQL, (event.type, event.at, event.environment, event.context_json))
    else:
        emit_many(conn, chunk)

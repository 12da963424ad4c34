"""Seed and rate -> rows in the outbox from several writers: commits, rollbacks, savepoints, COPY, large transactions.

Edge: psycopg. A writer whose connection breaks opens a new one, as an app does. It does not find out whether its last
commit succeeded: the run counts the rows in Postgres at the end.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

_SIZES = {1: 50, 10: 20, 200: 20, 3000: 9, 30_000: 1}
_RETRY_S = 0.2

_ROWS = """
    INSERT INTO outbox (event_type, event_date_time, environment, event_context)
    SELECT 'chaos', timestamptz '2026-01-15Z' + make_interval(months => n %% 6), 'chaos',
           jsonb_build_object('n', n, 'text', repeat('x', 40))
    FROM generate_series(1, %s) AS n"""


class Writers:
    """Threads that write; each writes at most `rows_per_s` rows a second on average."""

    def __init__(self, dsn: str, count: int, seed: int, rows_per_s: float) -> None:
        """Create the threads; `start` starts them."""
        self._dsn = dsn
        self._rows_per_s = rows_per_s
        self._stopped = threading.Event()
        rngs = [random.Random(seed * 1000 + number) for number in range(count)]  # noqa: S311 - reproducible on purpose
        self._threads = [threading.Thread(target=self._write, args=(rng,), daemon=True) for rng in rngs]

    def start(self) -> None:
        """Start all writers."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop all writers, and wait for their last transactions."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _write(self, rng: random.Random) -> None:
        while not self._stopped.is_set():
            try:
                with psycopg.connect(self._dsn, connect_timeout=3) as conn:
                    while not self._stopped.is_set():
                        rows = _transaction(conn, rng)
                        self._stopped.wait(rows / self._rows_per_s)
            except psycopg.Error:
                self._stopped.wait(_RETRY_S)


def _transaction(conn: psycopg.Connection[Any], rng: random.Random) -> int:
    sizes, weights = zip(*_SIZES.items(), strict=True)
    rows: int = rng.choices(sizes, weights)[0]
    write_rows: Callable[[psycopg.Connection[Any], int], None] = rng.choices(
        [_plain, _copy, _savepoint, _other_table], [6, 2, 2, 1]
    )[0]
    write_rows(conn, rows)
    if rng.random() < 0.1:  # noqa: PLR2004 - one in ten is rolled back
        conn.rollback()
    else:
        conn.commit()
    return rows


def _plain(conn: psycopg.Connection[Any], rows: int) -> None:
    conn.execute(_ROWS, [rows])


def _copy(conn: psycopg.Connection[Any], rows: int) -> None:
    with conn.cursor().copy("COPY outbox (event_type, environment, event_context) FROM STDIN") as copy:
        for _ in range(rows):
            copy.write_row(("chaos", "copy", "{}"))


def _savepoint(conn: psycopg.Connection[Any], rows: int) -> None:
    conn.execute("SAVEPOINT before")
    conn.execute(_ROWS, [max(1, rows // 3)])
    conn.execute("ROLLBACK TO SAVEPOINT before")
    conn.execute(_ROWS, [rows])


def _other_table(conn: psycopg.Connection[Any], rows: int) -> None:
    # A transaction that writes only to another table, followed by an empty one.
    conn.execute("CREATE TABLE IF NOT EXISTS chaos_other (n int)")
    conn.execute("INSERT INTO chaos_other SELECT generate_series(1, %s)", [min(rows, 100)])
    conn.commit()

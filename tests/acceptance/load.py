"""Writers that keep committing while a test does something to the pipeline."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import TYPE_CHECKING

import psycopg

from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def writers(world: World, count: int = 2, *, interrupted: bool = False) -> Iterator[None]:
    """Write events of mixed transaction sizes, some rolled back, until the block ends.

    They fail if and only if they are `interrupted`: the block takes Postgres away from them.
    """
    over = threading.Event()
    errors: list[psycopg.Error] = []

    def write(number: int) -> None:
        try:
            with psycopg.connect(world.dsn) as conn:
                turn = number
                while not over.is_set():
                    turn += 1
                    size = (1, 3, 20, 400)[turn % 4]
                    conn.execute(
                        "INSERT INTO outbox (event_type, environment, event_context) "
                        "SELECT 'load', 'test', jsonb_build_object('n', n) FROM generate_series(1, %s) AS n",
                        [size],
                    )
                    if turn % 7:
                        conn.commit()
                    else:
                        conn.rollback()
                    over.wait(0.05)
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
        if interrupted:
            # All may have been between two transactions just now; each fails with its next one.
            threads[0].join(30)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert bool(errors) == interrupted, errors


@contextlib.contextmanager
def repeating(dsn: str, act: Callable[[psycopg.Connection], object], *, every_s: float) -> Iterator[None]:
    """Call `act` with a connection of its own again and again, until the block ends."""
    over = threading.Event()

    def run() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not over.wait(every_s):
                act(conn)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def trickle(world: World) -> contextlib.AbstractContextManager[None]:
    """Commit some hundred events a second, in transactions of several sizes, until the block ends."""
    sizes = itertools.cycle((1, 7, 30))
    insert = (
        "INSERT INTO outbox (event_type, environment, event_context) "
        "SELECT 'load', 'test', '{}' FROM generate_series(1, %s)"
    )
    return repeating(world.dsn, lambda conn: conn.execute(insert, [next(sizes)]), every_s=0.03)


def wait_for_more(world: World, what: str = "events flow") -> None:
    """Wait until ClickHouse holds more rows than it does now."""
    before = world.stored()
    until(lambda: world.stored() > before, what=what)

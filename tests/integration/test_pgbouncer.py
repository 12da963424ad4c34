"""Producers behind pgbouncer in transaction mode: each transaction may meet another server session."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from outhaul import Event, emit, emit_many
from tests.pgbouncer import needs_pgbouncer, pgbouncer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import World

pytestmark = [pytest.mark.long, needs_pgbouncer]


@pytest.fixture
def bounced(world: World, tmp_path: Path) -> Iterator[str]:
    """Run a pgbouncer with two server sessions; return its DSN."""
    with pgbouncer(world.dsn, tmp_path, pool_mode="transaction", default_pool_size="2") as dsn:
        yield dsn


def test_events_and_keys_of_many_clients_are_written_once(world: World, bounced: str) -> None:
    def write(number: int) -> int:
        # Statements prepared in one session are unknown in the next: psycopg's own advice for such poolers.
        with psycopg.connect(bounced, prepare_threshold=None) as conn:
            new = 0
            for turn in range(20):
                emit(conn, Event("plain", {"of": number}, environment="test"))
                events = [Event("keyed", {}, environment="test", key=f"{turn}-{key}") for key in range(5)]
                new += sum(emit_many(conn, events))
                conn.commit()
                emit(conn, Event("never", {}, environment="test"))
                conn.rollback()
        return new

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 100
    assert world.conn.execute("SELECT event_type, count(*) FROM outbox GROUP BY 1 ORDER BY 1").fetchall() == [
        ("keyed", 100),
        ("plain", 160),
    ]

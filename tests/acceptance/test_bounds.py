"""Memory, WAL and patience have bounds: a huge transaction, an idle outbox, ClickHouse down under load."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from outhaul.deploy.local.stack import Stack
from tests.acceptance.load import writers
from tests.conftest import World, started, until


def peak_mb(pid: int) -> float:
    """Peak resident memory of a process, MB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def one_transaction(world: World, rows: int) -> float:
    """Stream one transaction of `rows` rows through a fresh reader; return its peak memory, MB."""
    world.pipeline.start("reader")
    before = world.stored()
    world.insert(rows)
    until(lambda: world.stored() == before + rows, within_s=120, what=f"{rows} rows stored")
    until(lambda: world.confirmed() >= world.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn") - 1000)
    peak = peak_mb(world.pipeline.pid("reader"))
    assert "session_ended" not in world.pipeline.log("reader")
    world.pipeline.stop("reader")
    return peak


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_transaction_of_a_million_rows_needs_no_more_memory_than_a_small_one(
    make_world: Callable[..., World],
) -> None:
    world = make_world(fork=False)
    world.conn.execute("ALTER SYSTEM SET wal_sender_timeout = '5s'")
    world.conn.execute("SELECT pg_reload_conf()")
    try:
        world.pipeline.start("worker")
        small = one_transaction(world, 100_000)
        large = one_transaction(world, 1_000_000)
        print(f"peak memory: {small:.0f} MB for 100,000 rows, {large:.0f} MB for 1,000,000")
        assert large < 300
        assert large < small * 1.2
        world.assert_once_each()
    finally:
        world.conn.execute("ALTER SYSTEM RESET wal_sender_timeout")
        world.conn.execute("SELECT pg_reload_conf()")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_idle_outbox_pins_no_wal_on_a_busy_server(running: World) -> None:
    running.insert()
    running.assert_once_each()
    running.conn.execute("CREATE TABLE busy (filler text)")
    running.conn.execute("ALTER TABLE busy ALTER COLUMN filler SET STORAGE EXTERNAL")
    start = running.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
    while running.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn") - start < 1 << 30:
        running.conn.execute("INSERT INTO busy SELECT repeat('x', 100000) FROM generate_series(1, 300)")
        running.conn.execute("TRUNCATE busy")
    running.conn.execute("CHECKPOINT")

    def small_again() -> bool:
        # restart_lsn follows at the next snapshot that the server logs, which a checkpoint does.
        running.conn.execute("CHECKPOINT")
        return running.retained() < 32 << 20

    until(small_again, within_s=60, what="retained WAL under 32 MB")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_clickhouse_down_for_a_minute_under_load_loses_nothing_and_drains_by_itself(
    make_world: Callable[..., World], stack: Stack
) -> None:
    running = started(make_world(fork=False))
    running.insert(10)
    running.assert_once_each()
    with writers(running):
        stack.kill("clickhouse")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            running.pipeline.check()
            time.sleep(0.5)
        state = running.reader_state()
        assert state is not None
        assert state.in_flight_batches <= running.settings.max_in_flight
        peak = peak_mb(running.pipeline.pid("reader"))
        stack.up(["clickhouse"])
    running.assert_once_each(within_s=120)
    assert peak < 300
    # A ClickHouse that was killed takes inserts of a new epoch alone, and nothing else ends the session.
    ends = [line for line in running.pipeline.log("reader").splitlines() if '"session_ended"' in line]
    assert ends
    assert all("ClickHouse was restarted" in line for line in ends)
    until(
        lambda: (state := running.reader_state()) and not state.in_flight_batches and not state.trouble,
        what="the queue is empty",
    )

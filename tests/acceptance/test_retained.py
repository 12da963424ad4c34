"""`outhaul status` on the WAL that the slot keeps, with a small limit, and on servers that do not answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.cdc_reader.postgres.query import connect
from outhaul.cdc_reader.slots.retained_wal import fetch_slot
from tests import launch
from tests.acceptance.load import repeating
from tests.conftest import World, until
from tests.debian_postgres import postgres_15

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

LIMIT_BYTES = 96 << 20


def outhaul(world: World, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return launch.run(*args, env=world.env | env)


def status(world: World) -> dict[str, Any]:
    done = outhaul(world, "status", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == bool(found["wrong"])
    return found


@pytest.fixture
def limited(running: World) -> Iterator[World]:
    """A running pipeline on a server whose slots may keep 96 MiB; beside the outbox a table that fills the WAL."""
    running.conn.execute("CREATE TABLE busy (filler text)")
    running.conn.execute("ALTER TABLE busy ALTER COLUMN filler SET STORAGE EXTERNAL")
    running.conn.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '96MB'")
    running.conn.execute("SELECT pg_reload_conf()")
    try:
        yield running
    finally:
        running.conn.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        running.conn.execute("SELECT pg_reload_conf()")


def fill(world: World, megabytes: int) -> None:
    world.conn.execute("INSERT INTO busy SELECT repeat('x', 100000) FROM generate_series(1, %s)", [megabytes * 10])


def safe(world: World) -> int:
    return int(world.sql("SELECT safe_wal_size FROM pg_replication_slots WHERE slot_name = %s", world.settings.slot))


def busy(world: World) -> AbstractContextManager[None]:
    """Write half a megabyte of WAL a second, or so, until the block ends."""
    insert = "INSERT INTO busy VALUES (repeat('x', 100000))"
    return repeating(world.dsn, lambda conn: conn.execute(insert), every_s=0.2)


def test_status_shows_what_a_slot_keeps(running: World) -> None:
    found = status(running)["slot"]
    assert found["retained_bytes"] >= 0
    assert found["growth_bytes_s"] is not None
    assert (found["max_slot_wal_keep_size"], found["safe_wal_size"], found["time_to_trouble_s"]) == (None, None, None)
    assert (found["invalidation_reason"], found["inactive_since"]) == (None, None)
    assert "no limit (max_slot_wal_keep_size = -1)" in outhaul(running, "status").stdout


@pytest.mark.postgres(17)
def test_a_slot_without_a_reader_shows_since_when(world: World) -> None:
    assert status(world)["slot"]["inactive_since"].startswith("20")


@pytest.mark.thorough
def test_a_slot_that_comes_near_its_limit_shows_a_warning_and_a_time(limited: World) -> None:
    world = limited
    assert until(lambda: status(world)["slot"]["max_slot_wal_keep_size"] == LIMIT_BYTES)
    assert outhaul(world, "pause").returncode == 0
    with busy(world):
        found = status(world)
        assert found["slot"]["growth_bytes_s"] > 50_000
        left_s = found["slot"]["safe_wal_size"] / found["slot"]["growth_bytes_s"]
        assert found["slot"]["time_to_trouble_s"] == pytest.approx(left_s)
        assert any("at this rate Postgres invalidates it in" in line for line in found["wrong"])
        assert "at this rate" in outhaul(world, "status").stdout
    while safe(world) > LIMIT_BYTES / 6:
        fill(world, 4)
    found = status(world)
    assert 0 < found["slot"]["safe_wal_size"] < LIMIT_BYTES / 5
    assert any("more before Postgres invalidates it" in line for line in found["wrong"])
    assert outhaul(world, "resume").returncode == 0
    world.insert(3)
    world.assert_once_each()
    world.conn.execute("CHECKPOINT")
    until(lambda: status(world)["wrong"] == [], what="all is well again")


@pytest.mark.thorough
@pytest.mark.slow
def test_a_slot_that_postgres_gave_up_is_named_with_the_reason(limited: World) -> None:
    limited.pipeline.stop()
    fill(limited, 150)
    limited.conn.execute("CHECKPOINT")
    found = until(lambda: (shown := status(limited)) and shown["slot"]["wal_status"] == "lost" and shown)
    assert found["slot"]["invalidation_reason"] == "wal_removed"
    assert any("wal_status lost (wal_removed)" in line for line in found["wrong"])


@pytest.mark.thorough
def test_a_reader_that_keeps_up_under_load_shows_no_trouble(limited: World) -> None:
    with busy(limited):
        found = status(limited)
    assert not [line for line in found["wrong"] if "at this rate" in line]


@pytest.fixture
def dsn_of_15() -> Iterator[str]:
    with postgres_15() as folder:
        yield f"host={folder} user=outhaul dbname=postgres"


def test_postgres_before_17_is_asked_for_what_it_has(dsn_of_15: str) -> None:
    with connect(dsn_of_15) as conn:
        conn.execute("SELECT pg_create_logical_replication_slot('old', 'pgoutput')")
        found = fetch_slot(conn, "old")
        assert fetch_slot(conn, "none") is None
    assert found is not None
    assert (found.active, found.wal_status, found.max_slot_wal_keep_size) == (False, "reserved", None)
    assert (found.invalidation_reason, found.inactive_since) == (None, None)


def test_postgres_away_is_one_line_in_what_is_wrong(world: World) -> None:
    done = outhaul(world, "status", "--json", OUTHAUL_POSTGRES_DSN="postgresql://127.0.0.1:1/nothing")
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert found["slot"] is None
    assert [line for line in found["wrong"] if line.startswith("Postgres does not answer")]

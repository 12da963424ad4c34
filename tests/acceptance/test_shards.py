"""A stream that several readers share: each brings its part of the rows, and all of them bring each row once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.sink.redis_keys import reader_key
from outhaul.sink.settings import SHARD_BITS
from tests.acceptance.commands import asked, outhaul
from tests.acceptance.load import trickle, wait_for_more
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable

# A publication has row filters since this version.
pytestmark = pytest.mark.postgres(15)


def start(world: World, shards: int) -> None:
    """Start a reader for each shard."""
    for number in range(shards):
        world.pipeline.start(f"reader-{number}", arguments=["--shard", str(number)], OUTHAUL_SHARDS=str(shards))


def shares(world: World) -> list[int]:
    """Return how many streamed rows each shard has brought."""
    rows = world.clickhouse.rows(
        f"SELECT intDiv(cdc_ordinal, {1 << SHARD_BITS}) AS shard, count() FROM event_log WHERE cdc_lsn % 8 != 7 "
        "GROUP BY shard ORDER BY shard"
    )
    return [count for _, count in rows]


def assert_clean(world: World, *, deep: bool = True) -> dict[str, Any]:
    world.assert_once_each()
    found = asked(world, "verify", *(["--deep"] if deep else []))
    assert (found["missing"], found["extra"], found["differing"], found["repeated"]) == (0, 0, 0, 0)
    return found


@pytest.fixture
def two(make_world: Callable[..., World]) -> World:
    world = make_world(shards=2)
    world.pipeline.start("worker")
    start(world, 2)
    return world


@pytest.mark.thorough
def test_two_readers_share_the_rows_and_outlive_a_kill(two: World) -> None:
    assert "--shard 0 to --shard 1" in outhaul(two, "reader", code=2)
    two.insert(1000)
    two.conn.execute(
        "SELECT pg_logical_emit_message(true, 'outhaul', %s)",
        [json.dumps({"event_type": "emitted", "environment": "test", "event_context": {}})],
    )
    until(lambda: two.stored() == 1001)
    with trickle(two):
        wait_for_more(two)
        two.pipeline.kill("reader-1")
        wait_for_more(two, "the other shard goes on")
        silent = reader_key(two.settings.stream(1).fence)
        until(lambda: two.payloads.text(silent) is None, what="its last word is too old to count")
        state = asked(two, "status", code=1)
        assert [one["reader"] is not None for one in state["shards"]] == [True, False]
        assert any(line.startswith("shard 1: ") for line in state["wrong"])
        two.pipeline.start("reader-1", arguments=["--shard", "1"])
        wait_for_more(two)
    two.clickhouse.command("SYSTEM START MERGES event_log")
    two.clickhouse.command("DELETE FROM event_log WHERE event_type = 'emitted'")
    rows = assert_clean(two)["rows"]
    assert sum(shares(two)) == rows
    assert min(shares(two)) >= 0.4 * rows
    assert asked(two, "status")["wrong"] == []
    doctor = outhaul(two, "doctor")
    assert "Shard 1" in doctor
    assert f"{two.settings.slot}_0of2" in doctor
    assert asked(two, "pause")["reader"] == "paused"
    two.insert(10)
    assert asked(two, "resume")["reader"] == "running"
    assert_clean(two)


@pytest.mark.thorough
def test_what_one_shard_s_slot_skips_is_healed_and_the_other_s_rows_are_left_alone(two: World) -> None:
    two.insert(100)
    two.assert_once_each()
    two.pipeline.stop("reader-0", "reader-1")
    two.insert(101)
    plan = asked(two, "slot", "reset", "--shard", "1", "--to", "now", "--dry-run")
    assert plan["unread"]["events"] in {50, 51}
    done = asked(two, "slot", "reset", "--shard", "1", "--to", "now", "--yes")
    assert done["stored"] == plan["unread"]["events"]
    assert two.stored() == 100 + done["stored"]
    assert "--shard" in outhaul(two, "slot", "show", code=2)
    start(two, 2)
    two.insert(10)
    assert_clean(two)
    two.clickhouse.command("SYSTEM START MERGES event_log")
    two.clickhouse.command("DELETE FROM event_log WHERE id <= 20")
    assert asked(two, "verify", "--repair")["repaired"] == 20
    assert_clean(two)


@pytest.mark.thorough
def test_a_stream_is_divided_and_joined_again_under_load(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.pipeline.start("worker", "reader")
    with trickle(world):
        wait_for_more(world)
        world.pipeline.stop("reader")
        reshard(world, 2)
        start(world, 2)
        wait_for_more(world)
        assert "--yes" in outhaul(world, "setup", "--shards", "4", code=2)
        # One of the two is not stopped first: its session is ended, and it does not come back.
        world.pipeline.stop("reader-0")
        reshard(world, 4)
        assert world.pipeline.wait("reader-1", 30) != 0
        start(world, 4)
        wait_for_more(world)
        world.pipeline.stop(*(f"reader-{number}" for number in range(4)))
        reshard(world, 1)
        world.pipeline.start("reader")
        wait_for_more(world)
    assert_clean(world)
    names = world.conn.execute(
        "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE %s", [f"{world.settings.slot}%"]
    )
    assert names.fetchall() == [(world.settings.slot,)]
    assert world.conn.execute("SELECT pubname FROM pg_publication").fetchall() == [("outhaul",)]


def reshard(world: World, shards: int) -> None:
    said = outhaul(world, "setup", "--shards", str(shards), "--yes")
    assert f"OUTHAUL_SHARDS={shards}" in said
    world.env["OUTHAUL_SHARDS"] = str(shards)


@pytest.mark.thorough
def test_a_million_events_in_two_shards_half_each(two: World) -> None:
    for _ in range(100):
        two.insert(10_000)
    until(lambda: two.stored() == 1_000_000, within_s=120)
    assert_clean(two)
    first, second = shares(two)
    assert first == second == 500_000

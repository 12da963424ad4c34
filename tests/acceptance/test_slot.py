"""A slot is reset, lost or dropped under a running pipeline, and no event is: the commands say so, and the count."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.load import writers
from tests.conftest import OUTHAUL, World, until

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 90


def outhaul(world: World, *arguments: str, code: int = 0, **env: str) -> str:
    """Run a command as an operator would; return what it prints."""
    done = subprocess.run(
        [OUTHAUL, *arguments],
        env={**os.environ, **world.env, **env},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout or done.stderr


def asked(world: World, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outhaul(world, *arguments, "--json", code=code, **env))
    return found


def assert_verified(world: World) -> None:
    report = asked(world, "verify", "--deep")
    assert [report[kind] for kind in ("missing", "extra", "differing", "repeated")] == [0, 0, 0, 0]
    assert report["rows"] == world.sql("SELECT count(*) FROM outbox")


def test_reset_to_now_names_what_it_skips_and_all_of_it_arrives(running: World) -> None:
    running.insert(500)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.insert(10_000)
    dry = asked(running, "slot", "reset", "--to", "now", "--dry-run")
    assert dry["unread"]["events"] == 10_000
    assert (dry["unread"]["first_id"], dry["unread"]["last_id"]) == (501, 10_500)
    assert (dry["healed"], dry["lost"]) == (10_000, 0)
    assert "10,000 events" in outhaul(running, "slot", "reset", "--to", "now", "--dry-run")
    assert running.stored() == 500
    assert "--yes" in outhaul(running, "slot", "reset", "--to", "now", code=2)
    done = asked(running, "slot", "reset", "--to", "now", "--yes")
    assert done["stored"] == 10_000
    running.assert_once_each()
    running.pipeline.start("reader")
    running.insert(10)
    running.assert_once_each()
    assert_verified(running)


def test_with_accept_loss_they_do_not_arrive_and_the_plan_said_so(running: World) -> None:
    running.insert(5)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.insert(100)
    plan = asked(running, "slot", "reset", "--to", "now", "--accept-loss", "--dry-run")
    assert (plan["healed"], plan["lost"]) == (0, 100)
    done = asked(running, "slot", "reset", "--to", "now", "--accept-loss", "--yes")
    assert done["plan"]["lost"] == 100
    running.pipeline.start("reader")
    running.insert(1)
    until(lambda: running.stored() == 6)
    report = asked(running, "verify", code=1)
    assert report["missing"] == 100
    assert asked(running, "verify", "--repair")["repaired"] == 100
    running.assert_once_each()


@pytest.mark.parametrize("how", [["--to", "now"], ["--recreate"], ["--to", "confirmed"]])
def test_a_slot_in_use_is_reset_under_load_and_the_reader_resumes_by_itself(running: World, how: list[str]) -> None:
    with writers(running):
        until(lambda: running.stored() > 1000)
        asked(running, "slot", "reset", *how, "--yes")
        stored = running.stored()
        until(lambda: running.stored() > stored + 1000)
        running.pipeline.check()
    running.assert_once_each()
    assert_verified(running)


def test_a_dropped_slot_stops_the_reader_with_the_gap_and_the_command_mends_it(running: World) -> None:
    running.insert(50)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.conn.execute("SELECT pg_drop_replication_slot(%s)", [running.settings.slot])
    running.insert(70)
    said = outhaul(running, "reader", code=16)
    assert "70 events (ids 51 to 120)" in said
    assert "outhaul slot reset --recreate" in said
    assert asked(running, "slot", "reset", "--recreate", "--yes")["stored"] == 70
    running.pipeline.start("reader")
    running.insert(5)
    running.assert_once_each()
    assert_verified(running)


def test_a_slot_of_another_plugin_is_named_as_such_and_made_anew(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.conn.execute("SELECT pg_drop_replication_slot(%s)", [world.settings.slot])
    world.conn.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [world.settings.slot])
    world.insert(3)
    world.pipeline.start("worker")
    assert "test_decoding" in outhaul(world, "slot", "show", code=1)
    assert asked(world, "slot", "reset", "--recreate", "--yes")["stored"] == 3
    world.pipeline.start("reader")
    world.insert(3)
    world.assert_once_each()


def test_a_slot_is_dropped_and_created_again_and_nothing_is_lost(running: World) -> None:
    running.insert(10)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.insert(20)
    assert asked(running, "slot", "drop", "--yes")["plan"]["healed"] == 20
    running.insert(30)
    assert asked(running, "slot", "create", "--yes")["stored"] == 50
    running.pipeline.start("reader")
    running.insert(1)
    running.assert_once_each()


def test_a_slot_goes_forward_only_and_what_it_skips_is_repaired(running: World) -> None:
    running.insert(10)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.insert(20)
    end = running.sql("SELECT pg_current_wal_lsn()::text")
    assert "only go forward" in outhaul(running, "slot", "advance", "0/1", "--yes", code=2)
    asked(running, "slot", "advance", end, "--yes")
    running.pipeline.start("reader")
    running.insert(5)
    assert asked(running, "verify", "--repair")["repaired"] == 20
    running.assert_once_each()


def test_with_heal_auto_a_reader_makes_its_lost_slot_anew_and_copies_the_gap(running: World) -> None:
    running.insert(50)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.conn.execute("SELECT pg_drop_replication_slot(%s)", [running.settings.slot])
    running.insert(3000)
    running.pipeline.start("reader", OUTHAUL_HEAL="auto")
    with writers(running):
        until(lambda: "healed" in running.pipeline.log("reader"), within_s=60)
    running.assert_once_each()
    assert_verified(running)


def test_a_reader_parks_before_the_log_fills_the_disk_and_goes_on_when_clickhouse_answers(
    running: World,
) -> None:
    running.insert(50)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.pipeline.start("reader", OUTHAUL_HEAL="auto", OUTHAUL_PARK_WAL_BYTES=str(4 << 20))
    until(lambda: (state := running.reader_state()) and state.phase == "streaming")
    running.stack.kill("clickhouse")
    try:
        running.conn.execute("CREATE TABLE ballast (t text)")
        for _ in range(3):
            running.insert(100)
            running.conn.execute("INSERT INTO ballast SELECT repeat(md5(n::text), 30) FROM generate_series(1, 5000) n")
        until(lambda: "guard_waits" in running.pipeline.log("reader"), within_s=60)
    finally:
        running.stack.up()
    until(lambda: "healed" in running.pipeline.log("reader"), within_s=90)
    assert running.pipeline.log("reader").count("parked") >= 1
    running.assert_once_each()
    assert_verified(running)

"""A slot is reset, lost or dropped under a running pipeline, and no event is: the commands say so, and the count."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from outhaul.cdc_reader.outbox import heal as healing
from tests.acceptance.commands import asked, outhaul, outhaul_here
from tests.acceptance.load import writers
from tests.conftest import World, until
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from collections.abc import Callable


def assert_verified(world: World) -> None:
    report = asked(world, "verify", "--deep")
    assert [report[kind] for kind in ("missing", "extra", "differing", "repeated")] == [0, 0, 0, 0]
    assert report["rows"] == world.sql("SELECT count(*) FROM outbox")


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_with_accept_loss_they_do_not_arrive_as_the_plan_says(running: World) -> None:
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


@pytest.mark.thorough
@pytest.mark.parametrize("how", [["--to", "now"], pytest.param(["--to", "confirmed"], marks=pytest.mark.thorough)])
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


@pytest.mark.thorough
def test_a_slot_of_another_plugin_is_left_alone_until_the_operator_drops_it(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.conn.execute("SELECT pg_drop_replication_slot(%s)", [world.settings.slot])
    world.conn.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", [world.settings.slot])
    world.insert(3)
    world.pipeline.start("worker")
    assert "test_decoding" in outhaul(world, "slot", "show", code=1)
    refused = outhaul(world, "slot", "reset", "--recreate", "--yes", code=18)
    drop = f"SELECT pg_drop_replication_slot('{world.settings.slot}')"
    assert drop in refused
    world.conn.execute(drop.encode())
    assert asked(world, "slot", "reset", "--recreate", "--yes")["stored"] == 3
    world.pipeline.start("reader")
    world.insert(3)
    world.assert_once_each()


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_a_slot_goes_forward_only_and_what_it_skips_is_repaired(running: World) -> None:
    running.insert(10)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.insert(20)
    end = running.sql("SELECT pg_current_wal_lsn()::text")
    assert "only be moved forward" in outhaul(running, "slot", "advance", "0/1", "--yes", code=2)
    asked(running, "slot", "advance", end, "--yes")
    running.pipeline.start("reader")
    running.insert(5)
    assert asked(running, "verify", "--repair")["repaired"] == 20
    running.assert_once_each()


@pytest.mark.thorough
def test_what_clickhouse_has_removed_again_is_not_called_repaired(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.insert(35)
    running.assert_once_each()
    running.clickhouse.command("SYSTEM START MERGES event_log")

    def expire() -> None:
        running.clickhouse.command("ALTER TABLE event_log DELETE WHERE id <= 30", settings={"mutations_sync": 2})

    def heal(*arguments: Any, **named: Any) -> Any:
        done = heal_as_it_is(*arguments, **named)
        # A TTL does the same, a moment earlier or later.
        expire()
        return done

    heal_as_it_is = healing.heal
    monkeypatch.setattr(healing, "heal", heal)
    running.clickhouse.command("ALTER TABLE event_log MODIFY TTL toDateTime(event_date_time) + INTERVAL 9 DAY")
    expire()
    for _ in range(2):
        code, out, _ = outhaul_here(running.env, "verify", "--repair", "--json")
        found = json.loads(out.splitlines()[0])
        assert (code, found["missing"], found["repaired"], found["still_missing"]) == (1, 30, 0, 30)
        assert len(found["ids"]["still_missing"]) > 0
        assert "event_date_time" in found["ttl"]
    _, text, _ = outhaul_here(running.env, "verify", "--repair")
    assert "still missing" in text
    assert "removes events by toDateTime(event_date_time)" in text


def test_with_heal_auto_a_reader_creates_its_lost_slot_again_and_copies_the_gap(running: World) -> None:
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


@pytest.mark.thorough
def test_a_reader_parks_before_the_log_fills_the_disk_and_goes_on_when_clickhouse_answers(
    running: World,
) -> None:
    running.insert(50)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.pipeline.start("reader", OUTHAUL_PARK_WAL_BYTES=str(4 << 20))
    until(lambda: running.pipeline.log("reader").count('"recovered"') == 2)
    running.stack.kill("clickhouse")
    try:
        running.conn.execute("CREATE TABLE ballast (t text)")
        for _ in range(3):
            running.insert(100)
            running.conn.execute("INSERT INTO ballast SELECT repeat(md5(n::text), 30) FROM generate_series(1, 5000) n")
        until(lambda: '"parked"' in running.pipeline.log("reader"), within_s=60)
        assert running.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", running.settings.slot) == 0
    finally:
        running.stack.up()
    until(lambda: "healed" in running.pipeline.log("reader"), within_s=90)
    running.assert_once_each()
    assert_verified(running)


@pytest.mark.thorough
def test_a_slot_that_postgres_invalidated_is_created_again_and_nothing_is_lost(running: World) -> None:
    with writers(running):
        until(lambda: running.stored() > 500)
        running.pipeline.stop("reader")
        running.conn.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        running.conn.execute("SELECT pg_reload_conf()")
        try:
            running.conn.execute("CREATE TABLE ballast (t text)")
            for _ in range(4):
                running.conn.execute(
                    "INSERT INTO ballast SELECT repeat(md5(n::text), 30) FROM generate_series(1, 20000) AS n"
                )
                running.conn.execute("SELECT pg_switch_wal()")
                running.conn.execute("CHECKPOINT")
            until(
                lambda: (
                    running.sql("SELECT wal_status FROM pg_replication_slots WHERE slot_name = current_database()")
                    == "lost"
                )
            )
            said = outhaul(running, "reader", code=18)
            assert "outhaul slot reset --recreate" in said
            assert "are committed and not in ClickHouse" in said
        finally:
            running.conn.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            running.conn.execute("SELECT pg_reload_conf()")
        asked(running, "slot", "reset", "--recreate", "--yes")
        running.pipeline.start("reader")
        stored = running.stored()
        until(lambda: running.stored() > stored + 100)
    running.assert_once_each()
    assert_verified(running)


@pytest.mark.parametrize("slot_survives", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_a_promoted_standby_goes_on_where_the_primary_ended(running: World, slot_survives: bool) -> None:
    with writers(running):
        until(lambda: running.stored() > 500)
        running.pipeline.stop("reader")
    running.insert(200)
    data = Path(running.sql("SHOW data_directory"))
    running.conn.close()
    running.stack.down(["postgres"])
    (data / "standby.signal").touch()
    running.stack.up()
    running.conn = psycopg.connect(running.dsn, autocommit=True)
    running.conn.execute("SELECT pg_promote()")
    until(lambda: not running.sql("SELECT pg_is_in_recovery()"))
    if not slot_survives:
        running.conn.execute("SELECT pg_drop_replication_slot(%s)", [running.settings.slot])
    running.insert(300)
    said = outhaul(running, "reader", code=19 if slot_survives else 16)
    assert "outhaul slot reset --recreate" in said
    assert "are committed and not in ClickHouse" in said
    with writers(running):
        assert asked(running, "slot", "reset", "--recreate", "--yes")["stored"] >= 500
        running.pipeline.start("reader")
        stored = running.stored()
        until(lambda: running.stored() > stored + 100)
    running.assert_once_each()
    assert_verified(running)


@pytest.mark.thorough
def test_a_backfill_that_is_killed_twice_under_load_stores_everything_once(running: World) -> None:
    running.pipeline.stop("reader")
    running.conn.execute("SELECT pg_drop_replication_slot(%s)", [running.settings.slot])
    for _ in range(3):
        running.insert(100_000)
    said = outhaul(running, "setup")
    assert "300000 events (ids 1 to 300000)" in said
    assert "outhaul backfill" in said
    running.pipeline.start("reader")
    with writers(running):
        until(lambda: running.stored() > 0)
        for rows in (1, 100_000):
            process = subprocess.Popen(
                [OUTHAUL, "backfill"], env={**os.environ, **running.env}, stderr=subprocess.DEVNULL
            )
            until(lambda: running.ch("SELECT count() FROM event_log WHERE cdc_lsn % 8 = 7") > rows)  # noqa: B023
            process.kill()
            process.wait()
        done = asked(running, "backfill")
        assert 0 < done["copied"] < 300_000
    running.assert_once_each()
    assert_verified(running)


@pytest.mark.thorough
def test_a_heal_that_died_stays_due_and_then_copies_everything(running: World) -> None:
    running.insert(10)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.insert(1000)
    running.pipeline.stop("worker")
    env = {"OUTHAUL_RETRY_MAX_S": "1"}
    process = subprocess.Popen(
        [OUTHAUL, "slot", "reset", "--to", "now", "--yes"],
        env={**os.environ, **running.env, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: running.payloads.length(running.settings.queue_key) > 0)
    process.kill()
    process.wait()
    running.pipeline.start("worker")
    running.pipeline.start("reader", OUTHAUL_HEAL="auto")
    until(lambda: '"healed"' in running.pipeline.log("reader"), within_s=60)
    running.assert_once_each()
    assert_verified(running)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("slot.noted", marks=pytest.mark.thorough),
        "slot.dropped",
        pytest.param("slot.created", marks=pytest.mark.thorough),
    ],
)
def test_a_reset_that_dies_anywhere_is_mended_by_the_reader(running: World, tmp_path: Path, point: str) -> None:
    running.pipeline.stop("reader")
    running.insert(1000)
    points = tmp_path / "points"
    points.mkdir()
    (points / point).write_text("kill")
    outhaul(running, "slot", "reset", "--to", "now", "--yes", code=-signal.SIGKILL, OUTHAUL_FAILPOINTS=str(points))
    running.insert(10)
    running.pipeline.start("reader", OUTHAUL_HEAL="auto")
    until(lambda: '"healed"' in running.pipeline.log("reader"), within_s=60)
    running.assert_once_each()
    assert_verified(running)


@pytest.mark.thorough
def test_positions_of_an_old_primary_s_tail_are_passed_before_any_is_given_again(running: World) -> None:
    """What a primary wrote after its standby's last word may be stored already, where the new one will write."""
    running.insert(10)
    running.assert_once_each()
    running.pipeline.stop("reader")
    ahead = 40 << 20
    running.clickhouse.command(
        f"INSERT INTO event_log SELECT * REPLACE (id + 1000000 AS id, cdc_lsn + {ahead} AS cdc_lsn) FROM event_log"
    )
    running.clickhouse.command(
        "INSERT INTO event_log_epochs (source, epoch, owner, system_identifier, timeline) "
        "SELECT source, epoch + 1, 'old', system_identifier, timeline + 1 FROM event_log_epochs "
        "ORDER BY epoch DESC LIMIT 1"
    )
    tail = running.ch("SELECT max(cdc_lsn) FROM event_log")
    assert "reset --recreate" in outhaul(running, "slot", "reset", "--to", "confirmed", "--yes", code=19)
    asked(running, "slot", "reset", "--recreate", "--yes")
    running.pipeline.start("reader")
    running.insert(10)
    until(lambda: running.stored() == 30)
    assert running.ch("SELECT min(cdc_lsn) FROM event_log WHERE id BETWEEN 11 AND 20") > tail
    assert asked(running, "verify", code=1)["extra"] == 10

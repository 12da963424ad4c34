"""A reader that streams from a standby: commands work, and no death or promotion loses or repeats an event."""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from pydantic import SecretStr

from outhaul.cdc_reader.operate.exporter.postgres_metrics import collect
from outhaul.sink.errors import Exit
from tests import roles
from tests.acceptance.commands import asked, outhaul
from tests.acceptance.load import wait_for_more, writers
from tests.conftest import until
from tests.postgres_pair import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import World

# A standby decodes since this version.
pytestmark = pytest.mark.postgres(16)

_DSNS = ("postgres_dsn", "stream_dsn")


@contextmanager
def replicated(make_world: Callable[..., World], folder: Path, *, standbys: int = 1) -> Iterator[tuple[World, Pair]]:
    """Run a pipeline whose slot is on the first standby, and end all servers."""
    pair = Pair(folder)
    try:
        pair.start()
        for number in range(2, standbys + 1):
            pair.add_standby(f"standby{number}")
        world = make_world(postgres_dsn=pair.dsn, stream_dsn=pair.dsn_of(1))
        world.pipeline.start("worker")
        start(world)
        yield world, pair
    finally:
        pair.close()


def start(world: World) -> None:
    """Start a reader, and wait until this one streams: a word of one that was killed is in Redis for some seconds."""
    world.pipeline.start("reader")
    pid = world.pipeline.pid("reader")
    until(
        lambda: (state := world.reader_state()) and (state.pid, state.phase) == (pid, "streaming"),
        what="the reader streams",
    )


def slots(conn: psycopg.Connection[Any]) -> list[str]:
    with conn:
        return [row[0] for row in conn.execute("SELECT slot_name FROM pg_replication_slots WHERE plugin = 'pgoutput'")]


def back(world: World) -> None:
    """Connect to the current primary."""
    world.conn.close()
    world.conn = psycopg.connect(world.dsn, autocommit=True)


def findings(world: World, code: int = 0, **env: str) -> dict[str, dict[str, str]]:
    """Return what doctor has found of the standby, by check."""
    found = json.loads(outhaul(world, "doctor", "--json", code=code, **env).splitlines()[0])
    return {one["check"]: one for one in found if one["group"] == "Standby"}


def verified(world: World, *arguments: str, code: int = 0) -> dict[str, Any]:
    report = asked(world, "verify", *arguments, code=code)
    assert [report[kind] for kind in ("missing", "extra", "differing", "repeated")] == [0, 0, 0, 0]
    return report


@pytest.mark.thorough
def test_a_standby_decodes_and_every_command_works(make_world: Callable[..., World], tmp_path: Path) -> None:
    with replicated(make_world, tmp_path) as (world, pair):
        world.insert(100)
        world.assert_once_each()
        assert slots(pair.primary()) == []
        assert slots(pair.standby()) == [world.settings.slot]
        assert world.sql("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'outhaul'") == 0
        status = asked(world, "status")
        assert status["wrong"] == []
        assert (status["slot"]["active"], status["slot"]["is_following"]) == (True, True)
        world.clickhouse.command("TRUNCATE TABLE event_log")
        assert asked(world, "verify", "--repair")["repaired"] == 100
        verified(world, "--deep")
        assert {check: one["found"] for check, one in findings(world).items() if one["state"] == "fail"} == {}
        there = roles.as_reader(pair.dsn_of(1))
        seen = findings(world, OUTHAUL_POSTGRES_DSN=roles.as_reader(world.dsn), OUTHAUL_STREAM_DSN=there)
        assert "GRANT EXECUTE ON FUNCTION" in seen["pg_log_standby_snapshot"]["fix"]
        assert asked(world, "slot", "show")["slot"]["active_pid"]

        world.pipeline.stop("reader")
        world.insert(30)
        end = world.sql("SELECT pg_current_wal_lsn()::text")
        until(lambda: first(pair.standby(), "SELECT pg_last_wal_replay_lsn() >= %s", end), what="it is replayed")
        asked(world, "slot", "advance", end, "--yes")
        start(world)
        assert asked(world, "verify", "--repair")["repaired"] == 30
        world.pipeline.stop("reader")
        world.insert(30)
        assert asked(world, "slot", "reset", "--recreate", "--yes")["stored"] == 30
        start(world)
        world.insert(10)
        world.assert_once_each()
        world.clickhouse.command("TRUNCATE TABLE event_log")
        assert asked(world, "backfill")["copied"] == 170
        world.assert_once_each()


@pytest.mark.thorough
def test_figures_of_the_slot_are_those_of_the_standby_and_lag_counts_from_the_primary(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    with replicated(make_world, tmp_path) as (world, pair):
        world.insert(10)
        world.assert_once_each()
        seen = figures(world)
        counter = {
            name: SecretStr(roles.as_auditor(getattr(world.settings, name).get_secret_value())) for name in _DSNS
        }
        assert collect(world.settings.model_copy(update=counter)), "the exporter's role sees them, too"
        assert seen["outhaul_slot_active"] == 1
        assert seen["outhaul_slot_behind_bytes"] < 1 << 20
        with pair.standby() as conn:
            conn.execute("SELECT pg_wal_replay_pause()")
        world.conn.execute("CREATE TABLE ballast AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 5000) n")
        world.insert(10)
        until(lambda: figures(world)["outhaul_slot_behind_bytes"] > 4 << 20, what="it falls behind the primary")
        assert figures(world)["outhaul_slot_retained_bytes"] > 4 << 20, "the standby has received it and keeps it"
        assert "behind the primary and does not replay" in " ".join(asked(world, "status", code=1)["wrong"])
        assert findings(world, code=1)["replay"]["state"] == "fail"
        assert "did not pass" in outhaul(world, "verify", "--wait", "1", code=None)
        with pair.standby() as conn:
            conn.execute("SELECT pg_wal_replay_resume()")
        world.assert_once_each()
        assert asked(world, "status")["wrong"] == []


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_kills_of_reader_standby_and_primary_under_load_lose_and_repeat_nothing(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    with replicated(make_world, tmp_path) as (world, pair):
        with writers(world):
            until(lambda: world.stored() > 500)
            world.pipeline.kill("reader")
            start(world)
            wait_for_more(world)
            pair.crash_standby()
            wait_for_reader_to_say(world, '"session_ended"')
            assert "OUTHAUL_STREAM_DSN reaches it" in world.pipeline.log("reader")
            pair.start_standby()
            wait_for_more(world, "events flow after the crash of the standby")
            world.pipeline.kill("reader")
            pair.crash_standby()
            pair.start_standby()
            start(world)
            wait_for_more(world, "events flow after both")
        world.assert_once_each()
        pair.kill_primary()
        pair.stack.up(["postgres"])
        back(world)
        with writers(world):
            wait_for_more(world, "events flow after the crash of the primary")
        world.assert_once_each()
        verified(world, "--deep")
        assert world.ch("SELECT uniqExact(timeline) FROM event_log_epochs WHERE system_identifier != ''") == 1


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize("alive", [True, False])
def test_the_reader_goes_on_when_its_standby_is_promoted(
    make_world: Callable[..., World], tmp_path: Path, alive: bool
) -> None:
    """Its session outlives the promotion; a reader that was away at that time finds its slot before the branch."""
    with replicated(make_world, tmp_path) as (world, pair):
        with writers(world, interrupted=True):
            until(lambda: world.stored() > 500)
            if not alive:
                world.pipeline.kill("reader")
            pair.kill_primary()
        pair.promote()
        begun_at = time.monotonic()
        back(world)
        with writers(world):
            if alive:
                wait_for_more(world, "the session goes on")
                print(f"stored again {time.monotonic() - begun_at:.2f} s after the promotion")
                wait_for_reader_to_say(world, '"followed_to_new_timeline"')
            else:
                start(world)
            wait_for_more(world)
        world.assert_once_each()
        said = world.pipeline.log("reader")
        assert ("kept its own slot during the change" if alive else "was a standby's own") in said
        verified(world, "--deep")
        world.pipeline.kill("reader")
        start(world)
        world.insert(10)
        world.assert_once_each()
        assert asked(world, "status")["wrong"] == []
        assert findings(world)["role"]["found"] == "OUTHAUL_STREAM_DSN leads to the primary itself"


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_the_reader_goes_on_when_its_standby_follows_another_one_that_was_promoted(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    with replicated(make_world, tmp_path, standbys=2) as (world, pair):
        with writers(world):
            until(lambda: world.stored() > 500)
        world.assert_once_each()
        end = world.sql("SELECT pg_current_wal_lsn()::text")
        until(lambda: first(pair.standby(2), "SELECT pg_last_wal_replay_lsn() >= %s", end), what="the other has it")
        pair.kill_primary()
        pair.promote(2)
        pair.follow(2)
        back(world)
        with writers(world):
            wait_for_more(world, "the session goes on")
            wait_for_reader_to_say(world, '"followed_to_new_timeline"')
            wait_for_more(world)
            world.pipeline.kill("reader")
            start(world)
            wait_for_more(world)
        world.assert_once_each()
        assert first(pair.standby(), "SELECT pg_is_in_recovery()")
        assert '"promoted": false' in world.pipeline.log("reader")
        verified(world, "--deep")


@pytest.mark.thorough
def test_a_second_reader_takes_a_slot_of_the_standby_s_from_one_that_is_frozen(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    with replicated(make_world, tmp_path) as (world, _):
        world.conn.execute(f"GRANT pg_read_all_stats TO {roles.READER}")
        world.pipeline.start("reader-2")
        until(lambda: asked(world, "status")["standby"], what="the second waits")
        world.pipeline.signal("reader", signal.SIGSTOP)
        world.insert(10)
        world.assert_once_each()
        assert "it has stopped replying to Postgres" in world.pipeline.log("reader-2")
        world.pipeline.signal("reader", signal.SIGCONT)


@pytest.mark.thorough
def test_a_slot_that_a_conflict_invalidated_is_named_with_what_to_do_and_heals(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    with replicated(make_world, tmp_path) as (world, pair):
        world.insert(10)
        world.assert_once_each()
        pair.set_standby("hot_standby_feedback", "off")
        # Without its physical slot the primary forgets what the standby needed a moment ago.
        pair.set_standby("primary_slot_name", "")
        until(lambda: first(pair.standby(), "SELECT count(*) FROM pg_stat_wal_receiver") == 1, what="it follows")
        world.sql("SELECT pg_drop_replication_slot('standby') FROM pg_replication_slots WHERE NOT active")
        assert findings(world, code=1)["hot_standby_feedback"]["state"] == "fail"
        assert findings(world, code=1)["primary_slot_name"]["state"] == "warn"

        def is_lost() -> bool:
            world.conn.execute("CREATE TABLE churn (id int)")
            world.conn.execute("DROP TABLE churn")
            world.conn.execute("VACUUM pg_class")
            lost = "SELECT invalidation_reason FROM pg_replication_slots WHERE slot_name = %s"
            return bool(first(pair.standby(), lost, world.settings.slot) == "rows_removed")

        until(is_lost, within_s=60, what="the slot is invalidated")
        assert world.pipeline.wait("reader", 60) == Exit.SLOT_UNUSABLE
        assert "hot_standby_feedback = on" in world.pipeline.log("reader")
        assert "hot_standby_feedback = on" in " ".join(asked(world, "status", code=1)["wrong"])
        world.insert(20)
        pair.set_standby("hot_standby_feedback", "on")
        assert asked(world, "slot", "reset", "--recreate", "--yes")["stored"] == 20
        start(world)
        world.insert(10)
        world.assert_once_each()
        world.conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")


@pytest.mark.thorough
def test_the_stream_moves_to_the_standby_and_back_and_nothing_is_lost(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    """A slot that nobody moved the stream to is not streamed from: what it skips is unknown."""
    pair = Pair(tmp_path)
    try:
        pair.start()
        pair.set_standby("sync_replication_slots", "off")
        world = make_world(postgres_dsn=pair.dsn)
        standby = pair.dsn_of(1)
        world.pipeline.start("worker")
        start(world)
        with writers(world):
            until(lambda: world.stored() > 300)
            outhaul(world, "setup", OUTHAUL_STREAM_DSN=standby)
            said = outhaul(world, "reader", code=Exit.OTHER_HISTORY, OUTHAUL_STREAM_DSN=standby)
            assert "it was read from a slot of the primary, but this slot is one of a standby" in said
            world.pipeline.stop("reader")
            asked(world, "slot", "reset", "--recreate", "--yes", OUTHAUL_STREAM_DSN=standby)
            world.pipeline.start("reader", OUTHAUL_STREAM_DSN=standby)
            wait_for_more(world, "events come by the standby")
            said = outhaul(world, "reader", code=Exit.OTHER_HISTORY)
            assert "it was read from a slot of a standby, but this slot is one of the primary" in said
        world.assert_once_each()
        world.env["OUTHAUL_STREAM_DSN"] = standby
        assert findings(world, code=1)["no slot on the primary"]["state"] == "fail"
        world.sql("SELECT pg_drop_replication_slot(%s)", world.settings.slot)
        assert findings(world)["no slot on the primary"]["state"] == "pass"
        del world.env["OUTHAUL_STREAM_DSN"]
        world.pipeline.stop("reader")
        asked(world, "slot", "reset", "--recreate", "--yes")
        world.pipeline.start("reader")
        world.insert(10)
        world.assert_once_each()
        verified(world, "--deep")
    finally:
        pair.close()


@pytest.mark.thorough
@pytest.mark.postgres(17)
def test_a_slot_that_the_standby_keeps_in_step_is_a_copy_and_is_left_alone(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    pair = Pair(tmp_path)
    try:
        pair.start()
        world = make_world(postgres_dsn=pair.dsn)
        world.pipeline.start("worker")
        start(world)
        world.insert(10)
        world.assert_once_each()
        pair.wait_for_slot(world.settings.slot)
        standby = pair.dsn_of(1)
        for arguments in (["reader"], ["slot", "reset", "--recreate", "--yes"]):
            said = outhaul(world, *arguments, code=Exit.SLOT_UNUSABLE, OUTHAUL_HEAL="auto", OUTHAUL_STREAM_DSN=standby)
            assert "a standby's copy of the primary's slot" in said
            assert "Drop it on the primary" in said
        world.insert(10)
        world.assert_once_each()
        assert asked(world, "status")["wrong"] == []
    finally:
        pair.close()


@pytest.mark.thorough
def test_shards_are_divided_on_a_standby(make_world: Callable[..., World], tmp_path: Path) -> None:
    with replicated(make_world, tmp_path) as (world, pair):
        world.insert(100)
        world.assert_once_each()
        world.pipeline.stop("reader")
        world.insert(10)
        outhaul(world, "setup", "--shards", "2", "--yes")
        assert len(slots(pair.standby())) == 2
        world.env["OUTHAUL_SHARDS"] = "2"
        for shard in ("0", "1"):
            world.pipeline.start(f"reader-{shard}", arguments=["--shard", shard], OUTHAUL_SHARDS="2")
        world.insert(100)
        world.assert_once_each()
        assert asked(world, "status")["wrong"] == []


def first(conn: psycopg.Connection[Any], query: str, *arguments: Any) -> Any:
    with conn:
        row = conn.execute(query.encode(), arguments or None).fetchone()
    return row[0] if row else None


def figures(world: World) -> dict[str, float]:
    """Return the exporter's metrics of the slot."""
    return {sample.name: sample.value for family in collect(world.settings) for sample in family.samples}


def wait_for_reader_to_say(world: World, what: str) -> None:
    until(lambda: what in world.pipeline.log("reader"), within_s=60, what=what)

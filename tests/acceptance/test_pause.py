"""`outhaul pause` and `outhaul resume`, whether the reader runs or not, and with servers that do not answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests import launch
from tests.acceptance.load import wait_for_more, writers
from tests.conftest import World, until
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.deploy.local.stack import Stack

# A reader looks once a second, and says so once a second.
HEARD_WITHIN_S = 2.0


def outhaul(world: World, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return launch.run(*args, env=world.env | env)


def told(world: World, *args: str) -> dict[str, Any]:
    done = outhaul(world, *args, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def phase(world: World) -> str:
    state = world.reader_state()
    return state.phase if state else "none"


@pytest.fixture
def impatient(make_world: Callable[..., World]) -> World:
    """A pipeline whose walsender gives up a reader that says nothing for two seconds."""
    world = make_world()
    world.env["OUTHAUL_POSTGRES_DSN"] += " options='-c wal_sender_timeout=2s'"
    world.pipeline.start("worker", "reader", OUTHAUL_POSTGRES_DSN=world.env["OUTHAUL_POSTGRES_DSN"])
    until(lambda: phase(world) == "streaming", what="reader streams")
    return world


@pytest.mark.thorough
@pytest.mark.slow
def test_a_pause_under_load_keeps_the_session_and_after_it_every_row_is_stored_once(impatient: World) -> None:
    world = impatient
    pid = world.sql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", world.settings.slot)
    with writers(world):
        wait_for_more(world)
        found = told(world, "pause", "--reason", "a look\nat things")
        assert (found["is_paused"], found["reader"], found["in_flight_batches"]) == (True, "paused", 0)
        stored, confirmed, retained = world.stored(), world.confirmed(), world.retained()
        # Six times what the walsender waits for a word.
        over = time.monotonic() + 12
        while time.monotonic() < over:
            time.sleep(0.5)
            assert (world.stored(), world.confirmed()) == (stored, confirmed)
        assert world.retained() > retained + 100_000
        assert phase(world) == "paused"
        shown = json.loads(outhaul(world, "status", "--json").stdout)
        assert shown["wrong"] == []
        assert shown["pause"]["reason"] == "a look at things"
        assert "@" in shown["pause"]["by"]
        assert abs(shown["pause"]["since"] - time.time()) < 60
        assert "a look at things" in outhaul(world, "status").stdout
        assert told(world, "resume")["reader"] == "running"
        wait_for_more(world)
    world.assert_once_each()
    assert "session_ended" not in world.pipeline.log("reader")
    assert pid == world.sql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", world.settings.slot)
    end = world.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
    until(lambda: world.confirmed() >= end, what="the slot follows")


def test_pause_and_resume_reach_a_running_reader_within_two_seconds(running: World) -> None:
    began = time.monotonic()
    told(running, "pause")
    running.insert(3)
    # The commands' own start is not the reader's.
    print(f"paused after {time.monotonic() - began:.2f} s")
    with subprocess.Popen([OUTHAUL, "resume"], env=os.environ | running.env, stdout=subprocess.PIPE) as resuming:
        until(lambda: running.ch("SELECT min(is_paused) FROM event_log_pauses") is False, what="the word is kept")
        began = time.monotonic()
        until(lambda: running.stored() == 3, within_s=HEARD_WITHIN_S, what="the reader goes on")
        resuming.wait(30)
    running.assert_once_each()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("loss", ["reader", "reader and redis"])
def test_a_pause_survives_kill_9_of_the_reader(running: World, stack: Stack, loss: str) -> None:
    with writers(running):
        wait_for_more(running)
        told(running, "pause")
        running.pipeline.kill("reader")
        if loss != "reader":
            running.payloads._redis.flushdb()
        stored = running.stored()
        until(lambda: running.reader_state() is None, what="the state of the old reader has expired")
        running.pipeline.start("reader")
        until(lambda: phase(running) == "paused", what="the next reader pauses")
        assert running.stored() == stored
        told(running, "resume")
        wait_for_more(running)
    running.assert_once_each()


def test_a_running_reader_stays_paused_though_redis_loses_everything(running: World) -> None:
    told(running, "pause")
    running.payloads._redis.flushdb()
    running.insert(5)
    until(
        lambda: running.payloads.text(f"outhaul:{{{running.settings.source}}}:pause_heard"), what="it has asked again"
    )
    until(lambda: phase(running) == "paused", what="it says so again")
    assert running.stored() == 0
    told(running, "resume")
    running.assert_once_each()


@pytest.mark.thorough
def test_a_pause_with_an_end_ends_by_itself(running: World) -> None:
    found = told(running, "pause", "--for", "4s")
    assert found["reader"] == "paused"
    assert 3 < found["pause"]["until"] - found["pause"]["since"] < 5
    running.insert(5)
    assert running.stored() == 0
    until(lambda: running.stored() == 5, within_s=60, what="the reader goes on by itself")
    running.assert_once_each()
    until(lambda: phase(running) == "streaming", what="it says so")
    assert json.loads(outhaul(running, "status", "--json").stdout)["pause"] is None


@pytest.mark.thorough
def test_a_pause_holds_for_the_next_reader_which_drains_on_sigterm(world: World) -> None:
    done = outhaul(world, "pause")
    assert done.returncode == 0
    assert "no reader runs" in done.stdout
    world.insert(5)
    world.pipeline.start("worker", "reader")
    until(lambda: phase(world) == "paused", what="it pauses")
    before = world.confirmed()
    world.pipeline.stop("reader")
    assert '"event": "draining"' in world.pipeline.log("reader")
    assert (world.stored(), world.confirmed()) == (0, before)
    done = outhaul(world, "resume")
    assert "no reader runs" in done.stdout
    until(lambda: world.reader_state() is None, what="its state expires")
    world.pipeline.start("reader")
    world.assert_once_each()


@pytest.mark.thorough
def test_a_pause_says_what_is_not_stored_yet(running: World) -> None:
    running.pipeline.stop("worker")
    running.insert(5)
    until(lambda: (state := running.reader_state()) and state.in_flight_rows == 5, what="rows are in flight")
    with subprocess.Popen(
        [OUTHAUL, "pause", "--json"], env=os.environ | running.env, stdout=subprocess.PIPE, text=True
    ) as pausing:
        until(lambda: phase(running) == "pausing", what="the reader takes no more")
        assert pausing.poll() is None
        running.pipeline.start("worker")
        out, _ = pausing.communicate(timeout=60)
        assert json.loads(out)["reader"] == "paused"
    assert running.stored() == 5


def test_an_invalid_duration_is_a_usage_error(world: World) -> None:
    done = outhaul(world, "pause", "--for", "soon")
    assert done.returncode == 2
    assert "is not a duration" in done.stderr
    assert world.ch("SELECT count() FROM event_log_pauses") == 0


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OUTHAUL_REDIS_URL", "redis://127.0.0.1:1/0", "Redis does not answer"),
        ("OUTHAUL_REDIS_URL", "wrong password", "Redis refuses the login"),
        ("OUTHAUL_CLICKHOUSE_URL", "http://127.0.0.1:1/logs", "does not answer"),
        ("OUTHAUL_CLICKHOUSE_URL", "wrong password", "Check user and password"),
        ("OUTHAUL_CLICKHOUSE_TABLE", "elsewhere", "ClickHouse has no table 'elsewhere'"),
    ],
)
def test_a_server_that_is_away_is_one_line_and_nothing_is_changed(
    world: World, command: str, name: str, value: str, says: str
) -> None:
    if value == "wrong password":
        value = re.sub("//(.*@)?", "//nobody:wrong@", world.env[name])
    done = outhaul(world, command, **{name: value})
    assert done.returncode not in {0, 1, 2}
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr
    assert world.ch("SELECT count() FROM event_log_pauses") == 0


def test_pausing_needs_no_postgres(world: World) -> None:
    done = outhaul(world, "pause", OUTHAUL_POSTGRES_DSN="postgresql://127.0.0.1:1/nothing")
    assert (done.returncode, done.stderr) == (0, "")
    assert world.ch("SELECT max(is_paused) FROM event_log_pauses") is True

"""A process or server that falls silent is noticed within a stated time, shown by `outhaul status`, and recovers.

The five minutes of ClickHouse held are twenty seconds here; OUTHAUL_TEST_HOLD_S=300 gives them in full.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.sink.redis_keys import reconnecting_key
from tests import launch
from tests.conftest import until
from tests.faults.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from outhaul.deploy.local.stack import Stack

# Read when the tests are collected: each test runs without the variables of this shell.
HOLD_S = float(os.environ.get("OUTHAUL_TEST_HOLD_S", "20"))

# What a small and busy machine may add to a stated time.
GRACE_S = 5.0


@pytest.fixture(scope="module")
def rig(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(stack, tmp_path_factory.mktemp("liveness"))
    yield made
    made.close()


def status(rig: Rig) -> dict[str, Any]:
    """What an operator sees, whose own links are whole."""
    done = launch.run("status", "--json", env=rig.world.env, timeout_s=60)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == bool(found["wrong"])
    return found


def says(rig: Rig, words: str) -> bool:
    return any(words in line for line in status(rig)["wrong"])


@pytest.mark.thorough
@pytest.mark.slow
def test_a_postgres_that_answers_nothing_is_noticed_within_the_receive_timeout(rig: Rig) -> None:
    with rig.trial(writers=1):
        within_s = status(rig)["noticed_within_s"]["postgres"]
        assert within_s == rig.world.settings.receive_timeout_s
        rig.postgres.hold()
        until(lambda: "session_ended" in rig.log("reader"), within_s=within_s + GRACE_S, what="the reader notices")
        until(lambda: says(rig, "has no session and tries again"), what="status tells")
        rig.postgres.heal()
    until(lambda: not status(rig)["wrong"], what="all is well again")
    told = reconnecting_key(rig.world.settings.source)
    assert rig.world.payloads.text(told) is None, "what is over would be told again when the reader falls silent"


@pytest.mark.thorough
@pytest.mark.slow
def test_a_reader_wedged_on_redis_shows_and_goes_on_answering_postgres(rig: Rig) -> None:
    with rig.trial(writers=1):
        rig.redis.hold()
        until(lambda: says(rig, "does not report to Redis"), within_s=60, what="status tells")
        # Three times what the walsender would wait for an answer.
        time.sleep(12)
        assert "session_ended" not in rig.log("reader")
        until(lambda: status(rig)["slot"]["active"], what="the slot is held")
        rig.redis.heal()
    assert "session_ended" not in rig.log("reader")
    until(lambda: not status(rig)["wrong"], what="all is well again")


@pytest.mark.thorough
@pytest.mark.slow
def test_messages_that_no_worker_takes_show(rig: Rig) -> None:
    with rig.trial(writers=1):
        # The watchdog, too, or it would start another.
        rig.signal("worker", signal.SIGSTOP)
        until(lambda: says(rig, "no worker takes them"), what="status tells")
        rig.signal("worker", signal.SIGCONT)
    until(lambda: not status(rig)["wrong"], what="all is well again")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(HOLD_S + 240)
def test_clickhouse_held_costs_no_session_though_postgres_is_impatient(stack: Stack, tmp_path: Path) -> None:
    # Batches of the usual size: what gathers in five minutes would be too many parts for a table that never merges.
    rig = Rig(stack, tmp_path, wal_sender_timeout="2s", batch_max_rows=20_000)
    try:
        with rig.trial(writers=2):
            assert rig.world.sql("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'outhaul'") >= 1
            rig.clickhouse.hold()
            deadline = time.monotonic() + HOLD_S
            while time.monotonic() < deadline:
                time.sleep(1)
                assert "session_ended" not in rig.log("reader")
            until(lambda: says(rig, "the reader waits"), what="status tells")
            rig.clickhouse.heal()
        assert "session_ended" not in rig.log("reader")
    finally:
        rig.close()

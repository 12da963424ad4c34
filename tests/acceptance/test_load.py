"""`outhaul load` counts what it wrote, whatever happens to Postgres meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.acceptance.commands import asked, outhaul
from tests.conftest import World, until
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from outhaul.deploy.local.stack import Stack


def begin(world: World, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [OUTHAUL, "load", "--json", *arguments],
        env={**os.environ, **world.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def rows(world: World) -> int:
    return int(world.sql("SELECT count(*) FROM outbox"))


@pytest.mark.thorough
def test_what_it_counts_is_in_postgres_and_in_clickhouse(running: World) -> None:
    options = ("--rate", "0", "--rows", "5000", "--transaction", "1-50", "--rollback", "0.2", "--writers", "3")
    found = asked(running, "load", *options, "--keys", "0.5")
    assert found["events"] == rows(running) == 5000
    assert found["rolled_back_events"] > 0
    assert found["rate"] > 0
    # The same seed again: half of the events have keys that are there already.
    again = asked(running, "load", *options, "--keys", "0.5")
    assert again["known"] > 1000
    assert again["events"] + again["known"] == 5000
    assert rows(running) == 5000 + again["events"]
    running.assert_once_each()
    told = asked(running, "load", "--rate", "0", "--rows", "100", "--how", "wal")
    assert told["events"] == 100
    until(lambda: running.stored() == rows(running) + 100, what="the log's events are stored")


@pytest.mark.thorough
def test_a_postgres_that_is_killed_changes_no_count(world: World, stack: Stack) -> None:
    for how in ("many", "copy"):
        before = rows(world)
        process = begin(world, "--rate", "0", "--seconds", "2", "--how", how, "--writers", "4")
        until(lambda: rows(world) > before + 500, what="it writes")  # noqa: B023
        stack.kill("postgres")
        stack.up(["postgres"])
        world.conn.close()
        world.conn = psycopg.connect(world.dsn, autocommit=True)
        found = end(process)
        assert found["reconnects"] >= 1
        assert found["unknown_events"] == 0
        assert rows(world) == before + found["events"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_counts(world: World, number: signal.Signals) -> None:
    process = begin(world, "--rate", "500")
    until(lambda: rows(world) > 20, what="it writes")
    process.send_signal(number)
    assert end(process)["events"] == rows(world)


def test_what_postgres_refuses_is_reported_once(world: World) -> None:
    world.conn.execute("ALTER TABLE outbox ADD CHECK (id < 100)")
    said = outhaul(world, "load", "--rate", "0", "--json", code=1)
    assert said.count("violates check constraint") == 2
    assert '"events": ' in said
    assert "does not support keys" in outhaul(world, "load", "--keys", "1", "--how", "copy", code=2)

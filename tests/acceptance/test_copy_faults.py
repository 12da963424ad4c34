"""A copy from the outbox while everything that it needs breaks: it goes on by itself, and stores each row once."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
import redis

from tests import launch
from tests.acceptance.commands import asked
from tests.acceptance.load import writers
from tests.conftest import World, until
from tests.launch import OUTHAUL

if TYPE_CHECKING:
    from collections.abc import Callable

_ROWS = 100_000


def kill_worker(world: World) -> None:
    world.pipeline.kill("worker")
    world.pipeline.start("worker")


def flush_redis(world: World) -> None:
    redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]).flushdb()


def restart_redis(world: World) -> None:
    world.stack.kill("redis")
    world.stack.up()


def restart_clickhouse(world: World) -> None:
    world.stack.kill("clickhouse")
    world.stack.up()
    world.clickhouse.command("SYSTEM STOP MERGES event_log")


def freeze_worker(world: World) -> None:
    world.pipeline.signal("worker", signal.SIGSTOP)
    until(lambda: world.payloads.length(world.settings.queue_key) > 0)
    world.pipeline.signal("worker", signal.SIGCONT)


@pytest.mark.thorough
@pytest.mark.parametrize("breaks", [kill_worker, flush_redis, restart_redis, restart_clickhouse, freeze_worker])
def test_a_copy_outlives_what_it_needs_and_stores_each_row_once(
    running: World, breaks: Callable[[World], None]
) -> None:
    running.pipeline.stop("reader")
    running.conn.execute("SELECT pg_drop_replication_slot(%s)", [running.settings.slot])
    running.insert(_ROWS)
    launch.run("setup", env=running.env, timeout_s=60).check_returncode()
    # Small batches, so that many are on their way.
    running.env["OUTHAUL_BATCH_MAX_ROWS"] = "2000"
    running.pipeline.start("reader")
    with (
        writers(running),
        subprocess.Popen(
            [OUTHAUL, "backfill"],
            env={**os.environ, **running.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            until(lambda: running.ch("SELECT count() FROM event_log WHERE cdc_lsn % 8 = 7") > 0)
            breaks(running)
            said, _ = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 0, said
    running.assert_once_each()
    assert asked(running, "verify", "--deep")["rows"] == running.sql("SELECT count(*) FROM outbox")

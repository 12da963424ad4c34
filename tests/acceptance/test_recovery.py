"""A reader that takes over streams what ClickHouse lacks, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from outhaul.deploy.demo.pipeline import Pipeline
from tests.conftest import World, until


def test_recovery_streams_only_what_is_missing(make_world: Callable[..., World]) -> None:
    """A reader dies in the middle of a transaction: the slot cannot pass it, so all of its rows come again."""
    world = make_world(batch_max_rows=2000)
    world.pipeline.start("worker", "reader")
    world.insert(100_000)
    until(lambda: world.stored() > 0, what="a part is stored")
    world.pipeline.kill("reader")
    world.insert(10)
    world.pipeline.start("reader")
    world.assert_once_each()
    state = until(lambda: (state := world.reader_state()) and not state.in_flight_batches and state)
    assert state.events_captured == 100_010
    assert 0 < state.events_left_out < 100_000
    assert state.events_stored == state.events_captured - state.events_left_out


def test_an_old_epoch_s_messages_in_the_queue_do_nothing(world: World) -> None:
    world.pipeline.start("reader")
    world.insert(500)
    until(lambda: world.payloads.length(world.settings.queue_key) == 1, what="a message waits, no worker runs")
    world.pipeline.kill("reader")
    world.pipeline.start("reader")
    until(lambda: world.payloads.length(world.settings.queue_key) == 2, what="the new reader has sent the rows too")
    world.pipeline.start("worker")
    world.assert_once_each()
    until(lambda: '"outcome": "stale"' in world.pipeline.log("worker"))


def test_losing_all_of_redis_costs_a_dispatch_and_nothing_else(running: World) -> None:
    running.insert(10)
    running.assert_once_each()
    running.pipeline.kill("worker")
    running.insert(500)
    until(lambda: running.payloads.length(running.settings.queue_key) == 1)
    running.payloads._redis.flushdb()
    running.pipeline.start("worker")
    running.assert_once_each()
    assert "session_ended" not in running.pipeline.log("reader")


@pytest.mark.thorough
def test_two_pipelines_of_one_source_fence_each_other_and_say_so(running: World, tmp_path: Path) -> None:
    """Two slots, so neither stands by; both stream every row, and ClickHouse has it once."""
    running.insert(10)
    running.assert_once_each()
    other = f"{running.settings.slot}_other"
    running.conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (other,))
    logs = tmp_path / "other"
    logs.mkdir()
    second = Pipeline(running.env | {"OUTHAUL_SLOT": other}, logs)
    try:
        second.start("reader")
        said = "a newer reader has taken over this source"

        def both_said() -> bool:
            running.insert(50)
            return said in running.pipeline.log("reader") and said in second.log("reader")

        until(both_said, within_s=60, what="both say so")
        running.assert_once_each()
    finally:
        second.kill()
    running.insert(10)
    running.assert_once_each()

"""A reader that takes over streams what ClickHouse lacks, and nothing else."""

from tests.conftest import World, until


def test_recovery_streams_only_what_is_missing(world: World) -> None:
    """The slot stays behind on purpose: the rows of the first reader come again from Postgres and are left out."""
    world.pipeline.start("worker", "reader")
    world.insert(1000)
    world.assert_once_each()
    until(lambda: (state := world.reader_state()) and not state.in_flight_batches)
    position = world.sql("SELECT pg_current_wal_lsn()")
    with world.conn.transaction():
        world.insert(30_000)
    until(lambda: world.stored() > 1000, what="a part is stored")
    world.pipeline.kill("reader")
    assert position is not None
    world.insert(10)
    world.pipeline.start("reader")
    world.assert_once_each()
    left_out = until(lambda: (state := world.reader_state()) and state.events_stored and state).events_left_out
    assert left_out <= 30_010


def test_an_old_epoch_s_messages_in_the_queue_do_nothing(world: World) -> None:
    world.pipeline.start("reader")
    world.insert(500)
    until(lambda: world.payloads.length(world.settings.queue) == 1, what="a message waits, no worker runs")
    world.pipeline.kill("reader")
    world.pipeline.start("reader")
    until(lambda: world.payloads.length(world.settings.queue) == 2, what="the new reader has sent the rows too")
    world.pipeline.start("worker")
    world.assert_once_each()
    until(lambda: "batch_stale" in world.pipeline.log("worker"))


def test_losing_all_of_redis_costs_a_dispatch_and_nothing_else(running: World) -> None:
    running.insert(10)
    running.assert_once_each()
    running.pipeline.kill("worker")
    running.insert(500)
    until(lambda: running.payloads.length(running.settings.queue) == 1)
    running.payloads._redis.flushdb()
    running.pipeline.start("worker")
    running.assert_once_each()
    assert "session_ended" not in running.pipeline.log("reader")

"""Materialized views of a running pipeline equal their queries, also if a process dies before a view has a batch."""

from collections.abc import Callable

import pytest
import redis

from outhaul.sink.view_gaps import gaps
from tests.conftest import World, until

WINDOW = "SETTINGS non_replicated_deduplication_window = 10000"
AMOUNTS = "toUInt64(JSONExtractString(event_context, 'n'))"
# While it runs for its two seconds, the table has the batch and the view has nothing.
SLOW = "AND sleepEachRow(0.0015) = 0"


def make_view(world: World, condition: str = "") -> None:
    world.clickhouse.command(f"CREATE TABLE amounts (id Int64, n UInt64) ENGINE = MergeTree ORDER BY id {WINDOW}")
    world.clickhouse.command(
        "CREATE MATERIALIZED VIEW to_amounts TO amounts AS "
        f"SELECT id, {AMOUNTS} AS n FROM event_log WHERE event_type = 'amount' {condition}"
    )


def insert_amounts(world: World, count: int = 1000, bad: int | None = None) -> None:
    world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) "
        "SELECT 'amount', 'test', jsonb_build_object('n', CASE n WHEN %s THEN 'x' ELSE '5' END) "
        "FROM generate_series(1, %s) AS n",
        [bad, count],
    )


def viewed(world: World) -> tuple[int, int]:
    """Return the view's rows, and its different ids."""
    rows, ids = world.clickhouse.rows("SELECT count(), uniqExact(id) FROM amounts")[0]
    return int(rows), int(ids)


def test_one_event_that_a_view_cannot_cast_is_named_and_all_others_are_in_it(running: World) -> None:
    make_view(running)
    insert_amounts(running, bad=500)
    insert_amounts(running, 10)
    running.assert_once_each()
    until(lambda: viewed(running) == (1009, 1009), what="the view has all events but one")
    until(lambda: len(gaps(running.clickhouse, running.outbox)) == 1, what="the event is named")
    (gap,) = gaps(running.clickhouse, running.outbox)
    assert gap.view.endswith(".to_amounts")
    assert gap.rows == 1
    running.pipeline.kill("reader")
    running.stack.kill("redis")
    running.stack.up()
    running.pipeline.start("reader")
    insert_amounts(running, 10)
    running.assert_once_each()
    until(lambda: viewed(running) == (1019, 1019), what="the next reader neither loses nor repeats one")


def kill_worker(world: World) -> None:
    world.pipeline.kill("worker")
    world.pipeline.start("worker")


def kill_clickhouse(world: World) -> None:
    world.stack.kill("clickhouse")
    world.stack.up()


def replace_reader(world: World) -> None:
    world.pipeline.kill("worker")
    world.pipeline.kill("reader")
    world.stack.kill("clickhouse")
    world.stack.kill("redis")
    world.stack.up()
    redis.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]).flushdb()
    world.pipeline.start("worker", "reader")


@pytest.mark.parametrize(
    "fault", [kill_worker, kill_clickhouse, pytest.param(replace_reader, marks=pytest.mark.thorough)]
)
def test_a_view_has_each_event_once_if_a_process_dies_between_the_table_and_the_view(
    running: World, fault: Callable[[World], None]
) -> None:
    make_view(running, SLOW)
    insert_amounts(running)
    until(lambda: running.stored() == 1000, what="the table has the batch")
    assert viewed(running)[0] < 1000, "the view was too fast for this test"
    fault(running)
    running.assert_once_each(within_s=90)
    until(lambda: viewed(running) == (1000, 1000), what="the view has each event")
    running.insert(3)
    running.assert_once_each()
    assert viewed(running) == (1000, 1000)


@pytest.mark.thorough
def test_a_view_that_fails_for_a_while_has_each_event_once_when_it_works_again(running: World) -> None:
    running.clickhouse.command("CREATE TABLE works (yes UInt8) ENGINE = MergeTree ORDER BY yes")
    make_view(running, "AND intDiv(id * 0 + 1, (SELECT count() FROM works)) = 1")
    insert_amounts(running)
    running.assert_once_each()
    until(lambda: len(gaps(running.clickhouse, running.outbox)) > 0, what="the view is known to lack the batch")
    running.clickhouse.command("INSERT INTO works VALUES (1)")
    insert_amounts(running, 10)
    running.assert_once_each()
    until(lambda: viewed(running) == (1010, 1010), within_s=90, what="the reader fills the view")
    until(lambda: not gaps(running.clickhouse, running.outbox), what="no gap is left")

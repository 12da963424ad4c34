"""The known traps of this way of copying, each on its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from outhaul.deploy.local.fault_proxy import Act, Trap
from tests.conftest import until
from tests.faults import scenarios
from tests.faults.rig import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.rig import Rig

pytestmark = pytest.mark.timeout(150)

INSERT = rb"ArrowStream"


@pytest.mark.fault("clickhouse", "trap", "insert sent again, by the client itself or by the task")
def test_an_insert_reset_after_execution_is_sent_again_and_stored_once(rig: Rig) -> None:
    """Some versions of the client send an insert again without telling; in others it is the task that does."""
    with rig.trial(writers=0):
        rig.clickhouse.count(INSERT)
        trap = rig.clickhouse.catch(Trap(Act.LOSE_ANSWER, asks=INSERT))
        rig.insert(50, months=3)
        trap.wait()
        until(lambda: rig.clickhouse.counts[INSERT] >= 2, what="it is sent again")


@pytest.mark.fault("clickhouse", "trap", "half of a batch's partitions landed")
def test_a_batch_half_of_whose_parts_landed_is_completed(rig: Rig) -> None:
    for _ in range(5):
        with rig.trial(writers=0):
            rig.insert(200, kind="half", months=200)
            landed = _kill_when_some_landed(rig)
        if 0 < landed < 200:
            break
    assert 0 < landed < 200
    assert rig.world.ch("SELECT count() % 200 FROM event_log WHERE event_type = 'half'") == 0


def _kill_when_some_landed(rig: Rig) -> int:
    """Crash ClickHouse in the middle of an insert of many parts; return how many were there when it was up again."""
    query = "SELECT count() FROM event_log WHERE event_type = 'half'"
    before = int(rig.world.ch(query)) // 200 * 200
    until(lambda: int(rig.world.ch(query)) > before, what="a part is there")
    rig.clickhouse.refuse()
    rig.stack.kill("clickhouse")
    rig.stack.up(["clickhouse"])
    landed = int(rig.world.ch(query)) - before
    rig.clickhouse.heal()
    return landed


@pytest.mark.thorough
@pytest.mark.fault("worker", "trap", "wakes up when its batch was sent again")
def test_a_task_that_slept_while_its_batch_was_sent_again_stores_nothing_twice(rig: Rig) -> None:
    with rig.trial(writers=0):
        scenarios.a_task_sleeps_while_its_batch_is_sent_again(rig)


@pytest.mark.thorough
@pytest.mark.fault("worker", "trap", "a task of an old epoch wakes up")
def test_a_task_that_slept_over_a_change_of_reader_is_refused_by_clickhouse(rig: Rig) -> None:
    with rig.trial(writers=0):
        scenarios.a_task_sleeps_over_a_change_of_reader(rig)
    assert '"outcome": "stale"' in rig.log("worker")


@pytest.mark.thorough
@pytest.mark.fault("reader", "trap", "dies before feedback, batches are cut otherwise")
def test_a_reader_that_died_before_feedback_is_followed_by_one_that_leaves_out_what_is_stored(rig: Rig) -> None:
    with rig.trial(writers=0):
        scenarios.a_reader_dies_before_feedback(rig)
    # A transaction that comes slowly is more than one batch, and the reader died after the first.
    assert re.search(r'"held_rows": [1-9]', rig.log("reader"))


@pytest.mark.thorough
@pytest.mark.fault("reader", "trap", "rows that share one WAL record, cut by a restart")
@pytest.mark.parametrize("copy", [pytest.param(True, id="copy"), pytest.param(False, id="insert")])
def test_a_transaction_longer_than_a_batch_is_cut_by_restarts_in_its_middle(rig: Rig, *, copy: bool) -> None:
    """Several rows of a COPY have one LSN; batches of 200 cut them, and a reader dies after the third of them."""
    with rig.trial(writers=0):
        rig.lay("reader.stored", "kill@3")
        rig.insert(8000, copy=copy)
        rig.fired("reader.stored")
        rig.lay("reader.stored", "kill@2")
        rig.fired("reader.stored")
    assert (
        rig.world.ch(f"SELECT uniqExact(cdc_lsn) FROM event_log WHERE id IN {tuple(rig.journal.commits[-1][0])}") == 1
    )


@pytest.mark.thorough
@pytest.mark.fault("reader", "trap", "empty and foreign transactions only")
def test_transactions_without_events_move_the_slot_over_a_restart(rig: Rig) -> None:
    with rig.trial(writers=0):
        for _ in range(20):
            rig.world.conn.execute("INSERT INTO elsewhere VALUES ('x')")
            rig.world.conn.execute("SELECT pg_current_xact_id()")
        end = rig.world.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        rig.kill("reader")
        until(lambda: rig.world.confirmed() >= end, what="the slot follows")


@pytest.mark.thorough
@pytest.mark.fault("clickhouse", "trap", "too many parts")
def test_too_many_parts_is_waited_out(rig: Rig) -> None:
    def limit(parts: int) -> None:
        rig.world.clickhouse.command(
            f"ALTER TABLE event_log MODIFY SETTING parts_to_delay_insert = {parts}, parts_to_throw_insert = {parts}"
        )

    with rig.trial():
        limit(1)
        try:
            until(lambda: "TOO_MANY_PARTS" in rig.log("worker"), what="ClickHouse refuses")
            time.sleep(1)
            held = rig.world.confirmed()
            rig.insert(10)
            assert rig.world.confirmed() == held
        finally:
            limit(100_000)


@contextlib.contextmanager
def _full(rig: Rig, policy: str, room_bytes: int) -> Iterator[None]:
    """Leave Redis so much room only."""
    client = rig.valkey.client()
    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory", used + room_bytes)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.close()


@pytest.mark.thorough
@pytest.mark.fault("redis", "trap", "full, noeviction")
def test_a_redis_that_takes_nothing_more_is_waited_out(rig: Rig) -> None:
    with rig.trial(), _full(rig, "noeviction", -1000):
        until(lambda: "Redis is full" in rig.log("reader"), what="the reader says so")
        time.sleep(2)


@pytest.mark.thorough
@pytest.mark.fault("redis", "trap", "full of our own payloads, noeviction")
def test_a_redis_with_room_for_less_than_is_in_flight_still_lets_batches_through(rig: Rig) -> None:
    with rig.trial(writers=0), _full(rig, "noeviction", 1_500_000):
        rig.lay("task.fetched", "hold:2")
        _wide(rig, 4000)
        until(lambda: "Redis is full" in rig.log("reader"), what="the reader says so")
        rig.world.assert_once_each()


def test_a_report_makes_room_for_itself(rig: Rig) -> None:
    payloads = rig.world.payloads
    payloads.put("payload", os.urandom(2_000_000))
    with _full(rig, "noeviction", -500_000):
        payloads.report("reports", "stored", drop=["payload"])
    assert payloads.reports("reports", wait_s=1) == [b"stored"]


@pytest.mark.thorough
@pytest.mark.fault("redis", "trap", "full, allkeys-lru evicts")
def test_a_redis_that_evicts_loses_nothing(rig: Rig) -> None:
    with rig.trial(writers=0), _full(rig, "allkeys-lru", 1_500_000):
        before = rig.valkey.client().info("stats")["evicted_keys"]
        rig.lay("task.begun", "hold:2")
        _wide(rig, 4000)
        until(lambda: rig.valkey.client().info("stats")["evicted_keys"] > before, what="something is evicted")
        rig.world.assert_once_each()


def _wide(rig: Rig, count: int) -> None:
    """Commit events whose payloads do not compress."""
    rig.world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) SELECT 'wide', 'test', "
        "jsonb_build_object('x', (SELECT string_agg(md5(random()::text || n || m), '') "
        "FROM generate_series(1, 60) AS m)) "
        "FROM generate_series(1, %s) AS n",
        [count],
    )


@pytest.mark.thorough
@pytest.mark.fault("worker", "trap", "redelivered past the visibility timeout, the first run still inserts")
def test_a_redelivery_while_the_first_run_still_inserts_stores_nothing_twice(make_rig: Callable[..., Rig]) -> None:
    """The reader sends the batch again, Redis does, and the first insert arrives last of the three."""
    visibility_s = 4
    rig = make_rig(insert_timeout_s=2, task_time_limit_s=3, visibility_timeout_s=visibility_s)
    try:
        with rig.trial(writers=0):
            trap = rig.clickhouse.catch(Trap(Act.HOLD_REQUEST, asks=INSERT))
            rig.insert(50)
            trap.wait()
            rig.signal("worker", signal.SIGSTOP)
            # A worker looks for what has become visible when it starts, and then only every other minute.
            time.sleep(visibility_s + 1)
            with beside(rig, "worker") as second:
                done = '"batch_done"'
                until(lambda: second.log("worker").count(done) >= 2, within_s=45, what="sent again, and redelivered")
                rig.clickhouse.heal()
                rig.signal("worker", signal.SIGCONT)
                rig.insert(10)
                rig.flow()
    finally:
        rig.down("worker", "reader")


@pytest.fixture(scope="module")
def forgetful(make_rig: Callable[..., Rig]) -> Rig:
    """A pipeline whose table remembers the tokens of two parts only."""
    made = make_rig()
    made.world.clickhouse.command("ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 2")
    return made


def _forget(rig: Rig) -> None:
    """Let so much be stored that earlier tokens are forgotten."""
    for _ in range(4):
        rig.insert(5)
        rig.flow()


@pytest.mark.thorough
@pytest.mark.fault("worker", "trap", "sent again, its token forgotten")
def test_a_batch_sent_again_after_its_token_was_forgotten_is_stored_once(forgetful: Rig) -> None:
    with forgetful.trial(writers=0):
        forgetful.lay("task.stored", "stop")
        forgetful.insert(50)
        pid = forgetful.fired("task.stored")
        _forget(forgetful)
        os.kill(pid, signal.SIGKILL)


@pytest.mark.thorough
@pytest.mark.fault("worker", "trap", "wakes up when its token is forgotten")
def test_a_task_that_wakes_up_after_its_token_was_forgotten_stores_nothing_twice(make_rig: Callable[..., Rig]) -> None:
    """As after a pause of a machine that was longer than the window of tokens, in one and the same reader's life."""
    rig = make_rig()
    try:
        rig.world.clickhouse.command("ALTER TABLE event_log MODIFY SETTING non_replicated_deduplication_window = 2")
        with rig.trial(writers=0):
            rig.lay("task.fetched", "stop")
            rig.insert(50)
            pid = rig.fired("task.fetched")
            until(lambda: '"sending_again"' in rig.log("reader"), what="the batch is given up")
            _forget(rig)
            os.kill(pid, signal.SIGCONT)
            until(lambda: _done_twice(rig), what="the sleeper is done")
    finally:
        rig.down("worker", "reader")


def _done_twice(rig: Rig) -> bool:
    done = [line for line in rig.log("worker").splitlines() if '"batch_done"' in line and '"rows": 50' in line]
    return len(done) >= 2


@pytest.mark.thorough
@pytest.mark.fault("clickhouse", "trap", "hidden re-send when its token is forgotten")
def test_an_insert_reset_long_after_execution_is_stored_once(forgetful: Rig) -> None:
    with forgetful.trial(writers=0):
        forgetful.clickhouse.count(INSERT)
        trap = forgetful.clickhouse.catch(Trap(Act.HOLD_ANSWER, asks=INSERT))
        forgetful.insert(50)
        trap.wait()
        _forget(forgetful)
        seen = forgetful.clickhouse.counts[INSERT]
        forgetful.clickhouse.cut()
        until(lambda: forgetful.clickhouse.counts[INSERT] > seen, what="the client sends it again")

"""Sentinels promote a replica, a cluster moves the slot, both under load: events flow on, each is stored once."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import pytest

from outhaul.cdc_reader.operate.doctor import worker_checks
from outhaul.sink.errors import PipelineError
from tests.acceptance.commands import asked, outhaul
from tests.acceptance.load import trickle
from tests.acceptance.metrics_pages import start
from tests.acceptance.test_flower import Web
from tests.conftest import until
from tests.faults.redis_servers import SOON_MS, USUAL_MS, Cluster, Sentinels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import World

BOUND_S = 60.0

Servers = TypeVar("Servers", Sentinels, Cluster)

USUALLY = pytest.param(USUAL_MS, marks=pytest.mark.thorough)


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    made = Sentinels(tmp_path)
    yield made
    made.end()


@pytest.fixture(params=[Sentinels, Cluster])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sentinels | Cluster]:
    made = request.param(tmp_path)
    yield made
    made.end()


@contextmanager
def ended(made: Servers) -> Iterator[Servers]:
    try:
        yield made
    finally:
        made.end()


def streaming(world: World) -> bool:
    # The test's own connections have to find the way, too.
    with suppress(PipelineError):
        return bool((state := world.reader_state()) and state.phase == "streaming")
    return False


def started(make_world: Callable[..., World], url: str) -> World:
    """Return a pipeline whose events go through this Redis."""
    world = make_world(pool=True, redis_url=url)
    world.pipeline.start("worker", "reader")
    until(lambda: streaming(world), what="the reader streams")
    world.insert(10)
    world.assert_once_each()
    return world


def flows(world: World, what: str) -> float:
    """Wait until an event is stored that is committed from now on; return after how many seconds that was."""
    begun_at = time.monotonic()
    newest = world.sql("SELECT max(id) FROM outbox")
    until(lambda: world.ch("SELECT max(id) FROM event_log") > newest, within_s=BOUND_S, what=f"events flow: {what}")
    took_s = time.monotonic() - begun_at
    print(f"{what}: events stored again after {took_s:.1f} s")
    return took_s


def assert_clean(world: World) -> None:
    world.assert_once_each()
    world.pipeline.check()
    report = asked(world, "verify", "--deep")
    assert [report[kind] for kind in ("missing", "extra", "differing", "repeated")] == [0, 0, 0, 0]


@pytest.mark.parametrize("down_after_ms", [SOON_MS, USUALLY])
def test_a_primary_dies_under_load_and_events_flow_by_the_one_that_sentinels_promote(
    make_world: Callable[..., World], tmp_path: Path, down_after_ms: int
) -> None:
    with ended(Sentinels(tmp_path, down_after_ms)) as sentinels:
        world = started(make_world, sentinels.url(database=3))
        with trickle(world):
            sentinels.primary().kill()
            flows(world, f"the primary was killed, down-after-milliseconds {down_after_ms}")
        assert_clean(world)
        assert "redis_moved" in world.pipeline.log("reader")


@pytest.mark.thorough
def test_a_failover_by_hand_under_load_leaves_nobody_at_the_old_primary(
    make_world: Callable[..., World], sentinels: Sentinels
) -> None:
    world = started(make_world, sentinels.url())
    with trickle(world):
        for _ in range(2):
            old = sentinels.primary()
            begun_at = time.monotonic()
            sentinels.fail_over()
            print(f"the old primary was a replica after {time.monotonic() - begun_at:.1f} s")
            flows(world, "failover by hand")
            ports = {one.port for one in sentinels.servers} - {old.port}
            assert {sentinels.primary().port} == ports
    assert_clean(world)


@pytest.mark.thorough
def test_a_primary_that_hangs_is_left_when_sentinels_have_promoted_another(
    make_world: Callable[..., World], sentinels: Sentinels
) -> None:
    world = started(make_world, sentinels.url())
    with trickle(world):
        old = sentinels.primary()
        old.pause()
        flows(world, "the primary hangs")
        old.resume()
        until(lambda: old.says("role:slave"), what="the old primary has become a replica")
        flows(world, "it has woken up")
    assert_clean(world)


def test_the_slot_moves_under_load_and_events_follow_it(make_world: Callable[..., World], tmp_path: Path) -> None:
    with ended(Cluster(tmp_path)) as nodes:
        world = started(make_world, nodes.url())
        with trickle(world):
            nodes.move(world.settings.source)
            flows(world, "the slot was moved")
        world.assert_once_each()
        assert "redis_moved" in world.pipeline.log("reader")
        # By remote control, whose channels and answers have the prefix, too.
        assert [one.visibility_timeout_s for one in worker_checks.ask(world.settings).workers] == [300]


@pytest.mark.thorough
def test_a_move_that_takes_long_holds_events_up_and_loses_none(
    make_world: Callable[..., World], tmp_path: Path
) -> None:
    with ended(Cluster(tmp_path)) as nodes:
        world = started(make_world, nodes.url())
        with trickle(world):
            nodes.move(world.settings.source, hold_s=10)
            flows(world, "the slot was moved in ten seconds")
        assert_clean(world)


@pytest.mark.thorough
@pytest.mark.parametrize("node_timeout_ms", [SOON_MS, USUAL_MS])
def test_a_replica_takes_over_in_a_cluster_by_hand_and_after_a_kill(
    make_world: Callable[..., World], tmp_path: Path, node_timeout_ms: int
) -> None:
    with ended(Cluster(tmp_path, node_timeout_ms, replicas=True)) as nodes:
        world = started(make_world, nodes.url())
        with trickle(world):
            nodes.fail_over(world.settings.source)
            flows(world, "failover by hand")
            nodes.owner(world.settings.source).kill()
            flows(world, f"the node was killed, cluster-node-timeout {node_timeout_ms}")
        assert_clean(world)


@pytest.mark.thorough
def test_every_command_finds_the_server(make_world: Callable[..., World], servers: Sentinels | Cluster) -> None:
    world = started(make_world, servers.url())
    pages = start(world, "exporter")
    until(lambda: pages.value("exporter", "outhaul_celery_workers") == 1, what="the exporter sees the worker")
    assert pages.value("exporter", "outhaul_redis_up") == 1
    assert asked(world, "status")["queue_length"] == 0
    outhaul(world, "pause")
    until(lambda: (state := world.reader_state()) and state.phase == "paused", what="the reader pauses")
    outhaul(world, "resume")
    said: list[dict[str, str]] = json.loads(outhaul(world, "doctor", "--json").splitlines()[0])
    found = {(one["group"], one["check"]): one["state"] for one in said}
    assert {found["Redis", "place"], found["Celery", "workers"], found["Celery", "limits"]} == {"pass"}
    web = Web(world)
    try:
        until(web.is_up, what="Flower shows pages")
        until(lambda: web.facts("/workers?json=1")["data"], what="Flower lists the worker")
        # With the length of the queue, which it asks of the server by itself.
        assert f"<td>{world.settings.queue}</td>" in web.page("/broker")
    finally:
        web.process.kill()
        web.process.wait()
    # Dead letters go by the same queue, and what becomes of them by a list of their own.
    world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
        "VALUES ('late', 'infinity', 'test', '{}')"
    )
    until(lambda: world.ch("SELECT count() FROM event_log_dead_letters") == 1, what="a dead letter")
    world.clickhouse.command(
        "ALTER TABLE event_log_dead_letters UPDATE row = replaceAll(row, '\"infinity\"', '\"2026-01-02 00:00:00+00\"') "
        "WHERE 1 SETTINGS mutations_sync = 2"
    )
    assert len(asked(world, "dlq", "retry", "--all")["retried"]) == 1
    world.assert_once_each()

"""What operators do to a stream of several readers: dead letters, several outboxes, metrics, a division that dies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.commands import asked, outhaul
from tests.acceptance.load import trickle, wait_for_more
from tests.acceptance.metrics_pages import start
from tests.acceptance.test_shards import assert_clean, reshard, shares
from tests.acceptance.test_shards import start as start_shards
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A publication has row filters since this version.
pytestmark = pytest.mark.postgres(15)

SIGKILL = -9


@pytest.mark.thorough
@pytest.mark.parametrize(
    "dies_at",
    [
        "slot.created",
        *(
            pytest.param(point, marks=pytest.mark.thorough)
            for point in ("slot.noted", "slot.dropped", "slot.noted@2", "slot.dropped@2", "slot.created@2")
        ),
    ],
)
def test_a_division_that_is_killed_goes_on_where_it_stopped(
    make_world: Callable[..., World], tmp_path: Path, dies_at: str
) -> None:
    world = make_world()
    world.pipeline.start("worker", "reader")
    points = tmp_path / "points"
    points.mkdir()
    point, at, turn = dies_at.partition("@")
    (points / point).write_text(f"kill{at}{turn}")
    with trickle(world):
        wait_for_more(world)
        world.pipeline.stop("reader")
        outhaul(world, "setup", "--shards", "2", "--yes", code=SIGKILL, OUTHAUL_FAILPOINTS=str(points))
        reshard(world, 2)
        start_shards(world, 2)
        wait_for_more(world)
    assert_clean(world)
    assert asked(world, "status")["wrong"] == []


@pytest.mark.thorough
def test_two_outboxes_in_two_shards_and_a_dead_letter_that_comes_back(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False, shards=2, more_tables="public.audit=audit_log")
    outhaul(world, "setup")
    world.pipeline.start("worker")
    start_shards(world, 2)
    both = {"outbox": "event_log", "audit": "audit_log"}
    for outbox in both:
        world.conn.execute(
            f"INSERT INTO {outbox} (event_type, environment, event_context) "
            "SELECT 'tested', 'test', '{}' FROM generate_series(1, 300)".encode()
        )
    world.conn.execute(
        "INSERT INTO audit (event_type, event_date_time, environment, event_context) "
        "VALUES ('late', 'infinity', 'test', '{}')"
    )
    until(lambda: [world.ch(f"SELECT count() FROM {table}") for table in both.values()] == [300, 300])
    until(lambda: world.ch("SELECT count() FROM audit_log_dead_letters") == 1)
    # Ids of both outboxes begin at 1, so each shard has half of each.
    assert shares(world) == [150, 150]
    world.clickhouse.command(
        "ALTER TABLE audit_log_dead_letters UPDATE row = replaceAll(row, '\"infinity\"', '\"2026-01-02 00:00:00+00\"') "
        "WHERE 1 SETTINGS mutations_sync = 2"
    )
    assert len(asked(world, "dlq", "retry", "--all", "--table", "public.audit")["retried"]) == 1
    assert world.ch("SELECT count() FROM audit_log") == 301
    outhaul(world, "verify")


@pytest.mark.thorough
def test_every_shard_has_figures_of_its_own_and_those_of_the_pipeline_are_there_once(
    make_world: Callable[..., World],
) -> None:
    world = make_world(shards=2)
    pages = start(world, "worker", "exporter")
    start_shards(world, 2)
    world.insert(100)
    world.assert_once_each()
    until(lambda: pages.value("exporter", "outhaul_clickhouse_events") == 100, what="a look after the insert")
    until(lambda: pages.value("exporter", "outhaul_audit_compared_events") == 100, within_s=90, what="an audit")
    source = world.settings.source
    sources = {
        name: {sample.labels["source"] for sample in family.samples}
        for name, family in pages.families("exporter").items()
    }
    shards = {f"{source}/stream_{number}of2" for number in range(2)}
    assert sources["outhaul_slot_active"] == sources["outhaul_slot_retained_bytes"] == shards
    for shard in shards:
        assert pages.value("exporter", "outhaul_slot_active", source=shard) == 1
    assert sources["outhaul_clickhouse_events"] == sources["outhaul_audit_missing_events"] == {source}
    assert set.union(*sources.values()) == {source, *shards}

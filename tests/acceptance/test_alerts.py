"""Each alert fires in a real Alertmanager while a real pipeline is broken for it, and clears when it is mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.operator import outhaul
from tests.acceptance.pages import Pages, start
from tests.acceptance.test_replay import lose
from tests.alerting import in_a_hurry, watching
from tests.conftest import World, until

if TYPE_CHECKING:
    from pathlib import Path

PROCESSES = ("worker", "reader", "exporter")
Mend = Callable[[], object]


def start_again(world: World, pages: Pages, name: str) -> Mend:
    return lambda: world.pipeline.start(name, OUTHAUL_METRICS_PORT=str(pages.ports[name]))


def kill(name: str) -> Callable[[World, Pages], Mend]:
    def act(world: World, pages: Pages) -> Mend:
        world.pipeline.kill(name)
        world.insert(3)
        return start_again(world, pages, name)

    return act


def poison(world: World, _pages: Pages) -> Mend:
    world.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
        "VALUES ('tested', 'infinity', 'test', '{}')"
    )
    # It is told of what is new, and that is over by itself.
    return lambda: None


def lose_a_row(world: World, _pages: Pages) -> Mend:
    lose(world, "id = 2")
    return lambda: outhaul(world, "verify", "--repair")


def drop_the_slot(world: World, pages: Pages) -> Mend:
    world.pipeline.kill("reader")
    name = world.settings.slot
    active = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
    until(lambda: not world.sql(active, name), what="the slot is free")
    world.sql("SELECT pg_drop_replication_slot(%s)", name)

    def mend() -> None:
        outhaul(world, "slot", "create", "--yes")
        start_again(world, pages, "reader")()

    return mend


TROUBLES: dict[str, tuple[Callable[[World, Pages], Mend], tuple[str, ...]]] = {
    "reader killed": (kill("reader"), ("OuthaulNotCapturing", "OuthaulSlotInactive", "OuthaulProcessDown")),
    "exporter killed": (kill("exporter"), ("OuthaulExporterGone",)),
    "row lost": (lose_a_row, ("OuthaulAuditMissing",)),
    "slot dropped": (drop_the_slot, ("OuthaulSlotGone",)),
}


@pytest.fixture
def pages(world: World) -> Pages:
    """Run a pipeline with its exporter, through which some events have gone."""
    made = start(world, *PROCESSES)
    world.insert(20)
    world.assert_once_each()
    return made


def test_workers_gone_and_dead_letters_fire_and_clear(world: World, pages: Pages, tmp_path: Path) -> None:
    with watching(pages.ports, world.settings.source, tmp_path) as watch:
        mend = kill("worker")(world, pages)
        watch.fires("OuthaulWorkersGone")
        mend()
        watch.clears("OuthaulWorkersGone")
        poison(world, pages)
        watch.fires("OuthaulDeadLetters")
        watch.clears("OuthaulDeadLetters")
    world.assert_once_each(dead=1)


@pytest.mark.long
@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_alert_fires_while_the_pipeline_is_broken_for_it_and_clears(
    world: World, pages: Pages, tmp_path: Path, trouble: str
) -> None:
    act, names = TROUBLES[trouble]
    with watching(pages.ports, world.settings.source, tmp_path) as watch:
        mend = act(world, pages)
        watch.fires(*names)
        mend()
        watch.clears(*names)
    world.assert_once_each()


def test_only_times_are_shorter_in_a_hurry() -> None:
    text = "expr: increase(x[15m] offset 1h) > 15 * 60 and y > 10 * 2^30\nfor: 0m\nfor: 4h\nz[30s]"
    assert in_a_hurry(text) == ("expr: increase(x[15s] offset 60s) > 15 and y > 10 * 2^30\nfor: 0s\nfor: 240s\nz[3s]")

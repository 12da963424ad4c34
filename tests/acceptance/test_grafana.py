"""Every query of every panel returns data from a live pipeline, as Prometheus sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from outhaul.deploy.grafana.__main__ import dashboards
from tests.acceptance.metrics_pages import start
from tests.conftest import World, until
from tests.prometheus import scraping
from tests.unit.test_grafana import panels

if TYPE_CHECKING:
    from pathlib import Path

# What only a server with a log of its queries tells, a slot with a limit, or an alert that fires.
NOT_HERE = ("outhaul_clickhouse_quer", "outhaul_slot_safe_wal", "outhaul_slot_wal_limit", "ALERTS")


@pytest.mark.thorough
def test_every_target_of_the_dashboards_has_data_in_a_live_run(world: World, tmp_path: Path) -> None:
    world.clickhouse.command(
        "CREATE TABLE seen (id Int64) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 10000"
    )
    world.clickhouse.command("CREATE MATERIALIZED VIEW to_seen TO seen AS SELECT id FROM event_log")
    pages = start(world, "worker", "reader", "exporter")
    targets = {
        f"{name}: {panel['title']} {target['refId']}": target["expr"]
        .replace("$__rate_interval", "10s")
        .replace("$source", world.settings.source)
        for name, text in dashboards().items()
        for panel in panels(json.loads(text))
        for target in panel["targets"]
    }
    wanted = {name: expr for name, expr in targets.items() if not any(metric in expr for metric in NOT_HERE)}
    assert len(wanted) > 0.9 * len(targets)
    with scraping(pages.ports, world.settings.source, tmp_path) as prometheus:
        world.conn.execute(
            "INSERT INTO outbox (event_type, event_date_time, environment, event_context) "
            "VALUES ('tested', 'infinity', 'test', '{}')"
        )

        def empty() -> list[str]:
            world.insert(5)
            return [name for name, expr in wanted.items() if not prometheus.ask(expr)]

        until(lambda: len(empty()) < 10, within_s=40, what="most targets have data")
        until(lambda: not empty(), within_s=60, what=f"these have data: {empty()}")
        assert prometheus.ask("outhaul_clickhouse_dead_letters")[0]["value"][1] == "1"
        assert prometheus.ask("sum(outhaul_reader_events_stored_total)")

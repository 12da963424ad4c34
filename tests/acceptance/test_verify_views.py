"""`outhaul verify --views` about a running pipeline with materialized views."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.sink.errors import Exit
from outhaul.sink.views import views_of
from tests.acceptance.commands import asked, outhaul
from tests.acceptance.load import writers
from tests.acceptance.metrics_pages import start
from tests.conftest import until

if TYPE_CHECKING:
    from tests.conftest import World


WINDOW = "SETTINGS non_replicated_deduplication_window = 10000"
VIEWS = (
    f"CREATE TABLE amounts (n UInt64) ENGINE = MergeTree ORDER BY n {WINDOW}",
    f"CREATE TABLE per_type (event_type String, c UInt64) ENGINE = SummingMergeTree ORDER BY event_type {WINDOW}",
    """CREATE MATERIALIZED VIEW to_amounts TO amounts AS
       SELECT toUInt64(JSONExtractRaw(event_context, 'n')) AS n FROM event_log""",
    f"CREATE MATERIALIZED VIEW everything ENGINE = MergeTree ORDER BY id {WINDOW} AS SELECT * FROM event_log",
    """CREATE MATERIALIZED VIEW to_per_type TO per_type AS
       SELECT event_type, count() AS c FROM event_log GROUP BY event_type""",
)


def views(world: World, code: int = 0) -> dict[str, dict[str, Any]]:
    found = json.loads(outhaul(world, "verify", "--views", "--json", code=code).splitlines()[0])
    return {one["views"].rpartition(".")[2]: one for one in found["views"]}


def test_what_views_lost_and_what_they_refuse_is_told_apart(running: World) -> None:
    for statement in VIEWS:
        running.clickhouse.command(statement)
    running.insert(50)
    running.assert_once_each()
    found = views(running)
    assert {name: (one["compared"], one["missing"], one["extra"]) for name, one in found.items()} == {
        "to_amounts": (50, 0, 0),
        "to_per_type": (1, 0, 0),
        "everything": (50, 0, 0),
    }
    running.clickhouse.command("ALTER TABLE amounts DELETE WHERE n = 7 SETTINGS mutations_sync = 2")
    running.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) VALUES ('tested', 'test', '{\"n\": \"x\"}')"
    )
    running.assert_once_each()
    found = views(running, code=1)
    assert (found["to_amounts"]["missing"], found["to_amounts"]["refused"]) == (1, 1)
    assert found["to_amounts"]["refused_ids"] == ["51"]
    assert (found["to_per_type"]["missing"], found["to_per_type"]["refused"]) == (0, 0)
    text = outhaul(running, "verify", "--views", code=1)
    assert "to_amounts" in text
    assert "(ids 51)" in text


@pytest.mark.thorough
def test_while_apps_write_no_newer_event_counts_as_a_difference(running: World) -> None:
    for statement in VIEWS:
        running.clickhouse.command(statement)
    found: list[dict[str, Any]] = []
    with writers(running):
        for _ in range(4):
            found += views(running).values()
    assert {(one["missing"], one["extra"], one["refused"], one["not_compared"]) for one in found} == {(0, 0, 0, "")}
    assert not all(one["is_exact"] for one in found)
    running.assert_once_each()
    # A lost row is found under load, too.
    (inner,) = [view.target for view in views_of(running.clickhouse, "event_log") if view.name.name == "everything"]
    assert inner is not None
    running.clickhouse.command(f"ALTER TABLE {inner.quoted} DELETE WHERE id = 1 SETTINGS mutations_sync = 2")
    with writers(running):
        lost = views(running, code=1)
    assert {name: one["missing"] for name, one in lost.items()} == {"everything": 1, "to_amounts": 0, "to_per_type": 0}


@pytest.mark.thorough
def test_a_view_made_while_the_reader_runs_is_noticed_and_refused_at_the_next_start(world: World) -> None:
    pages = start(world, "worker", "reader")
    world.clickhouse.command("CREATE MATERIALIZED VIEW hasty ENGINE = Log AS SELECT id FROM event_log")

    def metrics() -> str:
        return pages.answer("reader", "/metrics")[1]

    until(lambda: f'outhaul_reader_views_not_exact{{source="{world.settings.source}"}} 1.0' in metrics(), what="metric")
    world.insert(3)
    world.assert_once_each()
    (line,) = [line for line in asked(world, "status", code=1)["wrong"] if "hasty" in line]
    assert "may not get each event exactly once" in line
    world.pipeline.stop("reader")
    refused = outhaul(world, "reader", code=Exit.CLICKHOUSE_TABLE)
    assert "OUTHAUL_VIEWS_NOT_EXACT" in refused
    assert "hasty" in outhaul(world, "doctor", code=1)
    world.clickhouse.command("DROP VIEW hasty SYNC")
    world.pipeline.start("reader")
    world.insert(3)
    world.assert_once_each()


def test_without_views_there_is_nothing_to_compare(running: World) -> None:
    assert "no materialized view" in outhaul(running, "verify", "--views")


def test_views_are_compared_whole(running: World) -> None:
    assert "--views" in outhaul(running, "verify", "--views", "--deep", code=2)

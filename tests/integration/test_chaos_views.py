"""The views of a chaos run: what they lack and what they have twice is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.chaos.views import ViewCount, count_views, make_views

if TYPE_CHECKING:
    from tests.conftest import World


def test_events_that_views_lack_and_have_twice_are_counted(world: World) -> None:
    make_views(world.clickhouse)
    world.clickhouse.command(
        "INSERT INTO event_log (id, event_type, event_date_time, environment, event_context, cdc_source, cdc_lsn) "
        "SELECT number, 'x', now64(6), 'x', '{}', 'x', 1 FROM numbers(300)"
    )
    assert count_views(world.clickhouse) == (
        ViewCount("rows", 300, 0, 0),
        ViewCount("sums", 300, 0, 0),
        ViewCount("thirds", 100, 0, 0),
    )
    for statement in (
        "ALTER TABLE view_of_rows DELETE WHERE id < 2 SETTINGS mutations_sync = 2",
        "INSERT INTO view_of_rows SELECT id, event_type FROM view_of_rows WHERE id < 5",
        "INSERT INTO view_of_sums VALUES (7, 4)",
        "ALTER TABLE view_of_sums DELETE WHERE part = 8 SETTINGS mutations_sync = 2",
        "ALTER TABLE view_of_thirds DELETE WHERE id = 3 SETTINGS mutations_sync = 2",
    ):
        world.clickhouse.command(statement)
    assert count_views(world.clickhouse) == (
        ViewCount("rows", 298, 2, 3),
        ViewCount("sums", 297, 3, 4),
        ViewCount("thirds", 99, 1, 0),
    )

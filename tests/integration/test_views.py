"""The materialized views on a table, as ClickHouse lists them, and who refuses or shows those that are not exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.operate.doctor import clickhouse_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.status.ask import ask_clickhouse
from outhaul.cdc_reader.operate.status.problems import judge
from outhaul.cdc_reader.reader import check
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.views import TableName, View, views_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.cdc_reader.operate.doctor.finding import Finding
    from outhaul.sink.settings import Settings
    from tests.conftest import World

WINDOW = "SETTINGS non_replicated_deduplication_window = 100"


@pytest.fixture
def other(world: World) -> Iterator[str]:
    """Create a second database whose name needs quotes."""
    name = f"other.{world.settings.slot}"
    world.clickhouse.command(f"CREATE DATABASE `{name}`")
    yield name
    world.clickhouse.command(f"DROP DATABASE `{name}`")


def run(world: World, *statements: str) -> None:
    for statement in statements:
        world.clickhouse.command(statement)


def named(world: World) -> dict[str, View]:
    found = views_of(world.clickhouse, "event_log")
    assert len({view.name for view in found}) == len(found)
    return {view.name.name: view for view in found}


def test_a_table_without_views_and_one_that_is_missing_have_none(world: World) -> None:
    assert views_of(world.clickhouse, "event_log") == ()
    assert views_of(world.clickhouse, "not_there") == ()


def test_a_view_is_found_with_its_target_and_the_targets_window(world: World) -> None:
    run(
        world,
        f"CREATE TABLE ids (id Int64) ENGINE = MergeTree ORDER BY id {WINDOW}",
        "CREATE MATERIALIZED VIEW to_ids TO ids AS SELECT id FROM event_log",
    )
    view = named(world)["to_ids"]
    database = world.ch("SELECT currentDatabase()")
    assert (view.source, view.target) == (TableName(database, "event_log"), TableName(database, "ids"))
    assert view.table is not None
    assert (view.table.engine, view.token_window, view.depth) == ("MergeTree", 100, 1)
    assert view.as_select.startswith("SELECT id FROM ")
    assert view.is_visible
    assert not view.is_refreshable


def test_a_view_without_a_table_of_its_user_has_the_inner_one(world: World) -> None:
    run(
        world,
        "CREATE MATERIALIZED VIEW per_type ENGINE = SummingMergeTree ORDER BY event_type "
        "AS SELECT event_type, count() AS events FROM event_log GROUP BY event_type",
    )
    view = named(world)["per_type"]
    assert view.target is not None
    assert view.target.name.startswith(".inner_id.")
    assert view.table is not None
    assert (view.table.engine, view.token_window) == ("SummingMergeTree", 0)
    assert world.ch(f"SELECT count() FROM {view.target.quoted}") == 0


def test_views_on_targets_are_found_and_those_in_another_database(world: World, other: str) -> None:
    run(
        world,
        "CREATE TABLE passing (id Int64) ENGINE = Null",
        f"CREATE TABLE `{other}`.`t \\`a TO b` (id Int64) ENGINE = MergeTree ORDER BY id {WINDOW}",
        "CREATE MATERIALIZED VIEW first TO passing AS SELECT id FROM event_log",
        f"CREATE MATERIALIZED VIEW `{other}`.`second TO x.y` TO `{other}`.`t \\`a TO b` AS SELECT id FROM passing",
        f"CREATE MATERIALIZED VIEW third ENGINE = Memory AS SELECT id FROM `{other}`.`t \\`a TO b`",
    )
    views = named(world)
    assert {name: view.depth for name, view in views.items()} == {"first": 1, "second TO x.y": 2, "third": 3}
    second = views["second TO x.y"]
    assert second.name.database == other
    assert second.target == TableName(other, "t `a TO b")
    assert second.token_window == 100
    assert views["third"].source == second.target


def test_a_circle_of_views_ends(world: World) -> None:
    run(
        world,
        "CREATE TABLE ids (id Int64) ENGINE = MergeTree ORDER BY id",
        "CREATE MATERIALIZED VIEW forth TO ids AS SELECT id FROM event_log",
        "CREATE MATERIALIZED VIEW back TO event_log AS SELECT id FROM ids",
    )
    assert {name: view.depth for name, view in named(world).items()} == {"forth": 1, "back": 2}


def test_a_target_that_was_dropped_is_named_without_a_table(world: World) -> None:
    run(
        world,
        "CREATE TABLE ids (id Int64) ENGINE = MergeTree ORDER BY id",
        "CREATE MATERIALIZED VIEW to_ids TO ids AS SELECT id FROM event_log",
        "DROP TABLE ids",
    )
    view = named(world)["to_ids"]
    assert view.target is not None
    assert (view.target.name, view.table, view.token_window) == ("ids", None, 0)


def test_no_insert_is_pushed_to_a_refreshable_view(world: World) -> None:
    run(
        world,
        "CREATE TABLE ids (id Int64) ENGINE = MergeTree ORDER BY id",
        "CREATE MATERIALIZED VIEW hourly REFRESH EVERY 1 HOUR APPEND TO ids EMPTY AS SELECT id FROM event_log",
    )
    assert all(view.is_refreshable for view in named(world).values())


def test_a_view_that_was_dropped_is_gone(world: World) -> None:
    run(world, "CREATE MATERIALIZED VIEW v ENGINE = Memory AS SELECT id FROM event_log")
    assert set(named(world)) == {"v"}
    run(world, "DROP VIEW v")
    assert named(world) == {}


def test_the_reader_starts_only_when_each_view_is_exact_or_accepted(world: World) -> None:
    check(world.stream)
    run(
        world,
        "CREATE TABLE ids (id Int64) ENGINE = MergeTree ORDER BY id",
        "CREATE MATERIALIZED VIEW to_ids TO ids AS SELECT id FROM event_log",
        "CREATE MATERIALIZED VIEW per_type ENGINE = Log AS SELECT event_type FROM event_log",
    )
    with pytest.raises(FatalError, match="per_type may not get each event exactly once") as refused:
        check(world.stream)
    assert refused.value.exit_code is Exit.CLICKHOUSE_TABLE
    assert "and 1 more views" in str(refused.value)
    accepting = world.settings.model_copy(update={"views_not_exact": ("per_type",)})
    with pytest.raises(FatalError, match="to_ids may not get each event exactly once") as refused:
        check(accepting.undivided)
    statement = refused.value.todo.split(". Or ")[0]
    assert statement.startswith("ALTER TABLE ")
    run(world, statement)
    check(accepting.undivided)
    of_log = f"view {world.ch('SELECT currentDatabase()')}.per_type"
    assert {one.check: one.state for one in found_by_doctor(world, accepting)} == {of_log: State.WARN}
    assert {one.check: one.state for one in found_by_doctor(world, world.settings)} == {of_log: State.FAIL}


def found_by_doctor(world: World, settings: Settings) -> list[Finding]:
    asked = clickhouse_checks.ask(world.stream, world.settings.outboxes())
    return [one for one in clickhouse_checks.judge(asked, settings) if one.check.startswith("view")]


def test_status_shows_a_view_that_is_not_exact(world: World) -> None:
    run(world, "CREATE MATERIALIZED VIEW per_type ENGINE = Log AS SELECT event_type FROM event_log")
    (line,) = ask_clickhouse(world.clickhouse, [world.stream]).views_not_exact
    assert "per_type may not get each event exactly once" in line
    assert line in judge(None, None, ask_clickhouse(world.clickhouse, [world.stream]), world.stream, 0.0)

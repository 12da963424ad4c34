"""The doctor before a real ClickHouse: tables that lose, merge or pile up, and rights that are denied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.operate.doctor import clickhouse_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.sink.errors import PipelineError
from tests.integration.doctor_findings import (
    changed,
    make_tables,
    of_clickhouse,
    troubles,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import World


def test_a_table_that_forgets_tokens_is_mended_by_the_statement_it_names(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    make_tables(world)
    found = of_clickhouse(world)
    assert troubles(found) == {"tokens": State.FAIL}
    world.clickhouse.command(found["tokens"].fix)
    assert troubles(of_clickhouse(world)) == {}


def test_a_table_that_merges_events_fails(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    make_tables(world, engine="SummingMergeTree")
    assert of_clickhouse(world)["engine"].state is State.FAIL


def test_a_missing_table_and_a_missing_database_are_reported_in_one_line(world: World) -> None:
    world.clickhouse.command("DROP TABLE event_log_epochs SYNC")
    found = of_clickhouse(world)["tables"]
    assert (found.state, "'event_log_epochs'" in found.found) == (State.FAIL, True)
    url = world.env["OUTHAUL_CLICKHOUSE_URL"]
    wrong = changed(world, clickhouse_url=f"{url}_none")
    with pytest.raises(PipelineError, match="Create the database"):
        clickhouse_checks.ask(wrong.undivided, wrong.outboxes())


def test_parts_that_pile_up_are_counted_by_partition(world: World) -> None:
    world.clickhouse.command("ALTER TABLE event_log MODIFY SETTING parts_to_delay_insert = 2")
    for number in range(3):
        month = min(number, 1) + 1
        world.clickhouse.command(
            "INSERT INTO event_log (id, event_type, event_date_time, cdc_source, cdc_lsn) "
            f"VALUES ({number}, 'a', '2026-0{month}-01 00:00:00', 'x', 1)"
        )
    found = of_clickhouse(world)["parts"]
    assert found.state is State.WARN
    assert found.found == "2 in the fullest partition; inserts delayed at 2, refused at 3000"
    world.clickhouse.command(found.fix.split("  --")[0])


def test_dead_letters_of_this_source_are_counted(world: World) -> None:
    for source in (world.settings.source, "another"):
        world.clickhouse.command(
            "INSERT INTO event_log_dead_letters (row, reason, cdc_source, cdc_lsn, cdc_ordinal) "
            f"VALUES ('{{}}', 'test', '{source}', 1, 1)"
        )
    found = of_clickhouse(world)["dead letters"]
    assert (found.state, found.found) == (State.WARN, "1 events could not be stored; they are kept")


def test_a_privilege_that_the_server_denies_is_another_error(world: World) -> None:
    assert clickhouse_checks.granted(world.clickhouse, "INSERT", "event_log") is True
    # The embedded engine's one user may do everything but this.
    assert clickhouse_checks.granted(world.clickhouse, "CREATE USER", "*") is False
    assert clickhouse_checks.granted(world.clickhouse, "NO SUCH PRIVILEGE", "event_log") is None

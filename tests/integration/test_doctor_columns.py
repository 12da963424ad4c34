"""The doctor on columns: what Postgres has, what ClickHouse has, and which values would not come through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.capture.type_fit import Fit, fit_of
from outhaul.cdc_reader.operate.doctor import postgres_checks
from outhaul.cdc_reader.operate.doctor.finding import Finding, State
from outhaul.cdc_reader.operate.setup import rebind
from outhaul.sink.fence import raise_epoch
from outhaul.sink.position import NO_LSN, History
from tests.integration.doctor_findings import (
    make_tables,
    of_clickhouse,
    of_columns,
    sections,
    troubles,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import World


def test_a_column_that_clickhouse_lacks_is_named_and_one_of_a_position_fails(world: World) -> None:
    world.conn.execute("ALTER TABLE outbox ADD COLUMN amount money")
    world.clickhouse.command("ALTER TABLE event_log DROP COLUMN metadata_version")
    found = of_columns(world)
    assert found["new columns"].found.startswith("metadata_version (Int64), amount (String)")
    assert found["stored as text"].found.startswith("amount (money)")
    assert troubles(found) == {}
    world.clickhouse.command("ALTER TABLE event_log DROP COLUMN cdc_committed_at")
    found = of_columns(world)
    assert troubles(found) == {"column cdc_committed_at": State.FAIL}
    world.clickhouse.command(found["column cdc_committed_at"].fix)
    assert troubles(of_columns(world)) == {}


def test_a_column_of_a_type_that_is_too_small_is_mended_by_the_statement_it_names(world: World) -> None:
    world.clickhouse.command("ALTER TABLE event_log MODIFY COLUMN metadata_version Int32 DEFAULT 0")
    found = of_columns(world)
    assert troubles(found) == {"column metadata_version": State.FAIL}
    world.clickhouse.command(found["column metadata_version"].fix)
    assert troubles(of_columns(world)) == {}


def test_an_id_that_is_no_integer_fails(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.conn.execute("ALTER TABLE outbox ALTER id DROP DEFAULT, ALTER id TYPE uuid USING gen_random_uuid()")
    found = of_columns(world)
    assert found["id"].state is State.FAIL
    # A uuid comes as text, which does not count as a number either.
    assert found["column id"].state is not State.PASS


@pytest.mark.postgres(15)
def test_a_column_that_the_publication_leaves_out_is_named(world: World) -> None:
    world.conn.execute(
        "ALTER PUBLICATION outhaul SET TABLE outbox "
        "(id, event_type, event_date_time, environment, event_context, metadata_version)"
    )
    found = of_columns(world)
    assert troubles(found) == {"not published": State.WARN}
    assert found["not published"].found.startswith("event_key:")


@pytest.mark.thorough
def test_positions_of_another_cluster_fail_before_a_reader_stops_on_them(world: World) -> None:
    def history() -> Finding:
        return sections(world.settings)["Both sides"]["history"]

    assert history().found == "no reader has run yet"
    link = postgres_checks.ask(world.stream, world.settings.outboxes()).link
    assert isinstance(link, History)
    others = (History("7000000000000000000", link.timeline), History(link.system_identifier, link.timeline + 1))
    for epoch, known in enumerate((link, *others)):
        raise_epoch(world.clickhouse, world.stream, known, NO_LSN, epoch, f"owner{epoch}")
        found = history()
        assert found.state is (State.PASS if known == link else State.FAIL)
    assert found.fix.startswith("outhaul slot reset --recreate")
    rebind(world.clickhouse, world.settings)
    assert history().state is State.PASS


# Both ends, and the first integer that a double cannot hold, if the type has one.
_TELLING = {
    "Int16": ["-32768", "32767"],
    "Int32": ["-2147483648", "2147483647"],
    "Int64": ["-9223372036854775808", "9223372036854775807", "9007199254740993"],
    "UInt32": ["0", "4294967295"],
    "Bool": ["false", "true"],
}


@pytest.mark.parametrize("source", _TELLING)
def test_what_takes_a_number_is_what_clickhouse_gives_back_unchanged(world: World, source: str) -> None:
    for target in ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float64"):
        kept = all(
            world.ch(
                f"WITH CAST('{value}' AS {source}) AS sent, CAST(sent AS {target}) AS stored "
                f"SELECT CAST(stored AS {source}) = sent AND (toInt64(sent) < 0) = (stored < 0)"
            )
            for value in _TELLING[source]
        )
        assert (fit_of(source, target)[0] is Fit.WHOLE) is kept, target


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("DateTime64(6, 'UTC')", State.PASS),
        ("DateTime64(6, 'Asia/Tokyo')", State.PASS),
        ("DateTime64(3, 'UTC')", State.WARN),
        ("DateTime64(9, 'UTC')", State.WARN),
        ("DateTime('UTC')", State.FAIL),
    ],
)
def test_the_ends_of_time_are_what_the_server_makes_of_them(
    make_world: Callable[..., World], kind: str, state: State
) -> None:
    world = make_world(setup=False)
    make_tables(world, event_date_time=kind)
    assert of_clickhouse(world)["event_date_time"].state is state

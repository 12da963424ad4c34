"""No merge of ClickHouse removes an event: of two sources in one table, or of an outbox whose ids are not unique."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.postgres.preflight import unique_keys
from outhaul.cdc_reader.postgres.query import connect
from outhaul.sink.errors import Exit
from tests.acceptance.commands import outhaul
from tests.conftest import started, until
from tests.integration.doctor_findings import sections

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import World

COLUMNS = "event_type text NOT NULL, event_date_time timestamptz NOT NULL, environment text, event_context jsonb"
EVENT = (
    "INSERT INTO outbox (id, event_type, event_date_time, environment, event_context) "
    "VALUES ({id}, 'tested', '2026-01-02 03:04:05Z', 'test', '{{}}')"
)


def commit(world: World, number: int) -> None:
    world.conn.execute(EVENT.format(id=number).encode())


def merge(world: World) -> None:
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command("OPTIMIZE TABLE event_log FINAL")


def make_older(world: World) -> None:
    """Give a pipeline the table that releases before this one made."""
    text = str(world.ch("SHOW CREATE TABLE event_log"))
    world.clickhouse.command("DROP TABLE event_log SYNC")
    world.clickhouse.command(text.replace("ENGINE = MergeTree", "ENGINE = ReplacingMergeTree"))


def migrate(world: World) -> None:
    """Type what `outhaul setup` prints, as it is printed."""
    statements = re.findall(r"^  (.*);$", outhaul(world, "setup"), re.MULTILINE)
    assert statements
    for statement in statements:
        world.clickhouse.command(statement)
    assert world.ch("SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = 'event_log'") == (
        "MergeTree"
    )
    assert "ReplacingMergeTree" not in outhaul(world, "setup")


@pytest.mark.thorough
def test_events_of_two_sources_with_equal_ids_types_and_times_outlive_a_merge(
    make_world: Callable[..., World],
) -> None:
    one = make_world()
    two = make_world(clickhouse_url=one.env["OUTHAUL_CLICKHOUSE_URL"])
    for world in (one, two):
        started(world)
        commit(world, 1)
    until(lambda: one.stored() == 2, what="both events are stored")
    merge(one)
    assert one.stored() == 2
    assert one.ch("SELECT uniqExact(cdc_source, id, event_type, event_date_time) FROM event_log") == 2


@pytest.mark.thorough
def test_two_sources_do_not_start_on_a_table_that_would_merge_them_until_it_is_migrated(
    make_world: Callable[..., World],
) -> None:
    one = make_world()
    make_older(one)
    started(one)
    commit(one, 1)
    until(lambda: one.stored() == 1, what="the one source may use its table")
    two = make_world(clickhouse_url=one.env["OUTHAUL_CLICKHOUSE_URL"])
    refusal = outhaul(two, "reader", code=Exit.CLICKHOUSE_TABLE)
    assert f"source '{one.settings.source}' is in it, too" in refusal
    assert "outhaul setup" in refusal
    assert sections(two.settings)["ClickHouse"]["engine"].state is State.FAIL

    one.pipeline.stop("reader", "worker")
    assert one.ch("SELECT count() FROM event_log WHERE cdc_batch != 0") == 1
    migrate(two)
    # The new table has no tokens, so these batches must never be pushed to views again.
    assert one.ch("SELECT count() FROM event_log WHERE cdc_batch != 0") == 0
    for world in (one, two):
        started(world)
    commit(two, 1)
    until(lambda: one.stored() == 2, what="the event of the other source is stored, too")
    merge(one)
    assert one.stored() == 2


@pytest.mark.thorough
def test_events_with_one_id_type_and_time_outlive_a_merge(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    world.conn.execute(f"CREATE TABLE outbox (id bigint NOT NULL, {COLUMNS})".encode())
    outhaul(world, "setup")
    started(world)
    commit(world, 7)
    commit(world, 7)
    until(lambda: world.stored() == 2, what="both events are stored")
    merge(world)
    assert world.stored() == 2


@pytest.mark.thorough
def test_an_older_table_is_refused_for_an_outbox_whose_ids_are_not_unique_until_they_are(
    make_world: Callable[..., World],
) -> None:
    world = make_world(setup=False)
    world.conn.execute(f"CREATE TABLE outbox (id bigint NOT NULL, {COLUMNS})".encode())
    outhaul(world, "setup")
    make_older(world)
    refusal = outhaul(world, "reader", code=Exit.CLICKHOUSE_TABLE)
    assert "no unique index of public.outbox" in refusal
    found = sections(world.settings)["Both sides"]["unique ids"]
    assert (found.state, "CREATE UNIQUE INDEX" in found.fix) == (State.FAIL, True)
    world.conn.execute(found.fix.partition("make ids unique: ")[2].encode())
    assert sections(world.settings)["Both sides"]["unique ids"].state is State.PASS
    started(world)


@pytest.mark.parametrize(
    ("statement", "keys"),
    [
        ("ALTER TABLE outbox ADD PRIMARY KEY (id)", [{"id"}]),
        ("CREATE UNIQUE INDEX ON outbox (id)", [{"id"}]),
        ("CREATE UNIQUE INDEX ON outbox (id) INCLUDE (environment)", [{"id"}]),
        ("ALTER TABLE outbox ADD PRIMARY KEY (id, event_date_time)", [{"id", "event_date_time"}]),
        ("CREATE UNIQUE INDEX ON outbox (environment)", []),
        ("ALTER TABLE outbox ADD UNIQUE (id) DEFERRABLE", []),
        ("CREATE UNIQUE INDEX ON outbox (id) WHERE event_type = 'tested'", []),
        ("CREATE UNIQUE INDEX ON outbox ((id + 0))", []),
        ("CREATE INDEX ON outbox (id)", []),
    ],
)
def test_a_unique_key_is_valid_immediate_and_whole(world: World, statement: str, keys: list[set[str]]) -> None:
    world.conn.execute("DROP TABLE outbox")
    world.conn.execute(f"CREATE TABLE outbox (id bigint, {COLUMNS})".encode())
    world.conn.execute(statement.encode())
    with connect(world.dsn) as conn:
        assert list(unique_keys(conn, "public.outbox")) == keys


def test_an_index_that_could_not_be_built_is_no_unique_key(world: World) -> None:
    world.conn.execute("DROP TABLE outbox")
    world.conn.execute(f"CREATE TABLE outbox (id bigint, {COLUMNS})".encode())
    commit(world, 7)
    commit(world, 7)
    with pytest.raises(Exception, match="could not create unique index"):
        world.conn.execute("CREATE UNIQUE INDEX CONCURRENTLY ON outbox (id)")
    with connect(world.dsn) as conn:
        assert unique_keys(conn, "public.outbox") == ()

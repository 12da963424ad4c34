"""Views against the query that they were made of: what is missing, what is there twice, and what cannot be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.operate.exporter.view_audit import ViewAudit
from outhaul.cdc_reader.outbox.compare_views import ViewDifference, compare_views
from outhaul.sink.position import Lsn

if TYPE_CHECKING:
    from tests.conftest import World

WINDOW = "SETTINGS non_replicated_deduplication_window = 10000"
LINE = Lsn(1 << 60)


NUMBER = "concat('{\"n\":', toString(number), '}')"


def put(world: World, count: int = 30, lsn: int = 100, context: str = NUMBER, ingested_at: str = "now64(6)") -> None:
    """Store events in ClickHouse, as the pipeline does."""
    world.clickhouse.command(
        "INSERT INTO event_log (id, event_type, event_date_time, environment, event_context, cdc_source, cdc_lsn, "
        f"cdc_ordinal, cdc_ingested_at) SELECT {lsn} + number, toString(number % 3), now64(6), 'x', {context}, "
        f"'{world.settings.source}', {lsn}, number, {ingested_at} FROM numbers({count})"
    )


def run(world: World, *statements: str) -> None:
    for statement in statements:
        world.clickhouse.command(statement)


def plain(world: World) -> None:
    run(
        world,
        f"CREATE TABLE amounts (id Int64, n UInt64) ENGINE = MergeTree ORDER BY id {WINDOW}",
        "CREATE MATERIALIZED VIEW to_amounts TO amounts AS "
        "SELECT id, JSONExtractUInt(event_context, 'n') AS n FROM event_log",
    )


def summing(world: World) -> None:
    run(
        world,
        f"CREATE TABLE per_type (kind String, c UInt64) ENGINE = SummingMergeTree ORDER BY kind {WINDOW}",
        "CREATE MATERIALIZED VIEW to_per_type TO per_type AS "
        "SELECT event_type AS kind, count() AS c FROM event_log GROUP BY kind",
    )


def compared(world: World, line: Lsn = LINE) -> list[ViewDifference]:
    return list(compare_views(world.clickhouse, world.outbox, line))


def one(world: World, line: Lsn = LINE) -> ViewDifference:
    (found,) = compared(world, line)
    return found


def test_without_views_nothing_is_compared(world: World) -> None:
    assert compared(world) == []


def test_a_view_that_has_everything_is_fine_and_lost_and_repeated_rows_are_counted(world: World) -> None:
    plain(world)
    put(world)
    found = one(world)
    assert (found.compared, found.missing, found.extra, found.unit) == (30, 0, 0, "rows")
    assert found.is_fine
    run(world, "ALTER TABLE amounts DELETE WHERE n >= 26 SETTINGS mutations_sync = 2")
    run(world, "INSERT INTO amounts SELECT id, n FROM amounts WHERE n < 2", "INSERT INTO amounts VALUES (-1, 1)")
    found = one(world)
    assert (found.missing, found.extra) == (4, 3)
    assert not found.is_fine


def test_an_aggregating_view_is_compared_by_its_sums(world: World) -> None:
    summing(world)
    put(world)
    put(world, lsn=200)
    run(world, "OPTIMIZE TABLE per_type FINAL")
    found = one(world)
    assert (found.compared, found.missing, found.extra, found.unit) == (3, 0, 0, "groups")
    run(world, "INSERT INTO per_type VALUES ('0', 5)")
    run(world, "ALTER TABLE per_type DELETE WHERE kind = '1' SETTINGS mutations_sync = 2")
    found = one(world)
    assert (found.missing, found.extra) == (1, 1)


def test_states_are_merged(world: World) -> None:
    run(
        world,
        "CREATE TABLE states (kind String, c AggregateFunction(count), s AggregateFunction(sum, UInt64), "
        "total SimpleAggregateFunction(sum, UInt64), u AggregateFunction(uniq, Int64)) "
        f"ENGINE = AggregatingMergeTree ORDER BY kind {WINDOW}",
        "CREATE MATERIALIZED VIEW to_states TO states AS SELECT event_type AS kind, countState() AS c, "
        "sumState(cdc_lsn) AS s, sum(cdc_ordinal) AS total, uniqState(id) AS u FROM event_log GROUP BY kind",
    )
    put(world)
    put(world, lsn=200)
    run(world, "OPTIMIZE TABLE states FINAL")
    found = one(world)
    assert (found.compared, found.missing, found.extra, found.left_out) == (3, 0, 0, ("u",))
    assert found.not_compared == ""
    run(world, "ALTER TABLE states DELETE WHERE kind = '2' SETTINGS mutations_sync = 2")
    assert one(world).missing == 1


def test_views_with_one_target_are_compared_together(world: World) -> None:
    run(
        world,
        f"CREATE TABLE ids (id Int64) ENGINE = MergeTree ORDER BY id {WINDOW}",
        "CREATE MATERIALIZED VIEW odd TO ids AS SELECT id FROM event_log WHERE id % 2",
        "CREATE MATERIALIZED VIEW even TO ids AS SELECT id FROM event_log WHERE id % 2 = 0",
    )
    put(world)
    found = one(world)
    assert (found.compared, found.missing, found.extra) == (30, 0, 0)
    assert "odd" in found.views
    assert "even" in found.views


def test_a_view_on_a_target_is_compared_with_that_target(world: World) -> None:
    plain(world)
    run(
        world,
        f"CREATE TABLE large (n UInt64) ENGINE = MergeTree ORDER BY n {WINDOW}",
        "CREATE MATERIALIZED VIEW to_large TO large AS SELECT n FROM amounts WHERE n > 20",
    )
    put(world)
    assert [(found.missing, found.extra, found.not_compared) for found in compared(world)] == [(0, 0, "")] * 2
    run(world, "ALTER TABLE large DELETE WHERE n = 25 SETTINGS mutations_sync = 2")
    assert [found.missing for found in compared(world)] == [0, 1]


def test_a_view_that_was_made_without_history_is_complete_since_then(world: World) -> None:
    put(world, ingested_at="'2020-01-01 00:00:00'")
    plain(world)
    put(world, lsn=200, count=7)
    found = one(world)
    assert (found.missing, found.extra, found.compared) == (0, 0, 7)
    assert found.since is not None
    run(world, "ALTER TABLE amounts DELETE WHERE n = 3 SETTINGS mutations_sync = 2")
    assert one(world).missing == 1


def test_while_events_are_stored_newer_ones_count_neither_as_missing_nor_as_extra(world: World) -> None:
    plain(world)
    put(world)
    put(world, lsn=200, count=10)
    line = Lsn(150)
    found = one(world, line)
    assert (found.missing, found.extra, found.is_exact, found.compared) == (0, 0, False, 40)
    run(world, "ALTER TABLE amounts DELETE WHERE id = 205 SETTINGS mutations_sync = 2")
    assert one(world, line).missing == 0
    run(world, "ALTER TABLE amounts DELETE WHERE id = 105 SETTINGS mutations_sync = 2")
    assert one(world, line).missing == 1
    run(world, "INSERT INTO amounts SELECT id, n FROM amounts WHERE id < 110")
    assert one(world, line).extra == 7


def test_a_refused_event_is_counted_apart_and_the_rest_is_compared(world: World) -> None:
    run(
        world,
        f"CREATE TABLE amounts (n UInt64) ENGINE = MergeTree ORDER BY n {WINDOW}",
        "INSERT INTO event_log_view_gaps (cdc_source, view, cdc_batch, cdc_lsn, cdc_ordinal, first_lsn, last_lsn, "
        f"rows, reason) SELECT '{world.settings.source}', concat(currentDatabase(), '.to_amounts'), 9, 300, "
        "0, 300, 300, 1, 'Cannot parse'",
    )
    put(world)
    put(world, lsn=300, count=1, context='\'{"n":"x"}\'')
    run(
        world,
        "CREATE MATERIALIZED VIEW to_amounts TO amounts AS "
        "SELECT toUInt64(JSONExtractRaw(event_context, 'n')) AS n FROM event_log",
        "INSERT INTO amounts SELECT number FROM numbers(30)",
    )
    found = one(world)
    assert (found.missing, found.extra, found.refused, found.reason) == (0, 0, 1, "Cannot parse")
    assert not found.is_fine


@pytest.mark.parametrize(
    ("statements", "word"),
    [
        (("CREATE MATERIALIZED VIEW v ENGINE = Null AS SELECT id FROM event_log",), "Null"),
        (
            (
                "CREATE TABLE t (id Int64) ENGINE = MergeTree ORDER BY id",
                "CREATE MATERIALIZED VIEW v TO t AS SELECT id FROM event_log",
                "DROP TABLE t",
            ),
            "does not exist",
        ),
        (
            ("CREATE MATERIALIZED VIEW v ENGINE = Log AS SELECT id, now() AS t FROM event_log",),
            "now",
        ),
    ],
)
def test_what_is_not_compared_is_said(world: World, statements: tuple[str, ...], word: str) -> None:
    run(world, *statements)
    assert word in one(world).not_compared


def test_the_exporter_shows_what_each_view_lacks_and_has_beyond(running: World) -> None:
    audit = ViewAudit(running.settings)
    assert figures(audit) == {"outhaul_views_compared": 0, "outhaul_views_not_compared": 0}
    plain(running)
    run(running, "CREATE MATERIALIZED VIEW passing ENGINE = Null AS SELECT id FROM event_log")
    running.insert(9)
    running.assert_once_each()
    run(
        running,
        "ALTER TABLE amounts DELETE WHERE n = 3 SETTINGS mutations_sync = 2",
        "INSERT INTO amounts VALUES (-1, 2), (-2, 2)",
    )
    name = f"{running.ch('SELECT currentDatabase()')}.to_amounts"
    assert figures(audit) == {
        "outhaul_views_compared": 1,
        "outhaul_views_not_compared": 1,
        f"outhaul_view_missing {name}": 1,
        f"outhaul_view_extra {name}": 2,
    }


def figures(audit: ViewAudit) -> dict[str, float]:
    samples = [sample for family in audit.run_pass() for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}

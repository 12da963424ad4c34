"""What ClickHouse lacks of the outbox is named to the id, and stored once, beside a running pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.operate.doctor import postgres_checks
from outhaul.cdc_reader.operate.setup import apply_clickhouse, apply_postgres
from outhaul.cdc_reader.outbox.heal import heal, verify
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot, now
from outhaul.sink.errors import TransientError
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.outbox.compare import Compared
    from outhaul.cdc_reader.outbox.heal import Healed, Tally
    from outhaul.cdc_reader.outbox.snapshot import Line
    from tests.conftest import World

EVERYTHING_AGREES = {"missing": 0, "extra": 0, "differing": 0, "repeated": 0}


def quiet(_found: Compared, _last: int) -> None:
    """Nobody watches."""


def checked(world: World, *, deep: bool = True) -> Tally:
    with behind_the_slot(world.settings.streams(), within_s=30) as line:
        return verify(world.outbox, line, Scope(deep=deep), quiet)


def healed(world: World) -> Healed:
    with behind_the_slot(world.settings.streams(), within_s=30) as line:
        return heal(world.outbox, world.stream, line, Scope(), quiet, give_up_s=30)


def figures(tally: Tally) -> dict[str, int]:
    return {kind: getattr(tally, kind) for kind in EVERYTHING_AGREES}


def mutate(world: World, change: str) -> None:
    """Change rows behind everybody's back; merges are stopped but for that."""
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command(f"ALTER TABLE event_log {change} SETTINGS mutations_sync = 2")
    world.clickhouse.command("SYSTEM STOP MERGES event_log")


def test_both_sides_agree_to_the_byte_on_what_was_streamed(running: World) -> None:
    running.insert(3000)
    running.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, event_date_time, metadata_version, event_key) "
        "VALUES ('ä\\n\"', '', '{\"a\": [1, null, \"Zoë 🚀\"]}', '1999-12-31 23:59:59.999999+00', NULL, ''),"
        "('x', ' ', '\"\"', NULL, -1, 'k')"
    )
    running.assert_once_each()
    tally = checked(running)
    assert figures(tally) == EVERYTHING_AGREES
    assert tally.rows == 3002


def test_a_context_that_clickhouse_has_parsed_is_reported_as_not_compared(make_world: Callable[..., World]) -> None:
    world = make_world(context_type="JSON")
    world.pipeline.start("worker", "reader")
    world.insert(10)
    until(lambda: world.stored() == 10)
    tally = checked(world)
    assert figures(tally) == EVERYTHING_AGREES
    assert tally.not_compared == ["event_context"]


def test_damage_of_every_kind_is_named_to_the_id(running: World) -> None:
    running.insert(1000)
    running.assert_once_each()
    mutate(running, "DELETE WHERE id IN (7, 500)")
    mutate(running, "UPDATE event_context = '{}' WHERE id = 99")
    running.clickhouse.command("INSERT INTO event_log SELECT * FROM event_log WHERE id = 42")
    running.conn.execute("DELETE FROM outbox WHERE id = 321")
    tally = checked(running)
    assert tally.ids == {"missing": [7, 500], "extra": [321], "differing": [99], "repeated": [42]}
    assert figures(tally) == {"missing": 2, "extra": 1, "differing": 1, "repeated": 1}


def test_a_changed_content_shows_only_to_a_deep_look(running: World) -> None:
    running.insert(10)
    running.assert_once_each()
    mutate(running, "UPDATE metadata_version = 2 WHERE id = 3")
    assert checked(running, deep=False).agrees
    assert checked(running).ids["differing"] == [3]


def test_what_is_missing_is_stored_once_and_as_the_stream_would_have(running: World) -> None:
    running.insert(5000)
    running.assert_once_each()
    kept = "* EXCEPT (cdc_lsn, cdc_ordinal, cdc_ingested_at, cdc_committed_at, cdc_batch)"
    before = running.clickhouse.rows(f"SELECT {kept} FROM event_log ORDER BY id")
    mutate(running, "DELETE WHERE id % 3 = 0")
    done = healed(running)
    assert (done.tally.missing, done.stored) == (1666, 1666)
    assert running.clickhouse.rows(f"SELECT {kept} FROM event_log ORDER BY id") == before
    assert figures(checked(running)) == EVERYTHING_AGREES
    assert healed(running).stored == 0


@pytest.mark.thorough
def test_rows_that_clickhouse_cannot_hold_are_set_aside_by_a_copy_too(running: World) -> None:
    running.insert(5)
    running.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, event_date_time) "
        "VALUES ('x', 'y', '{}', 'infinity')"
    )
    running.assert_once_each(dead=1)
    assert figures(checked(running)) == EVERYTHING_AGREES
    running.clickhouse.command("TRUNCATE TABLE event_log_dead_letters")
    assert checked(running).ids["missing"] == [6]
    done = healed(running)
    assert (done.stored, done.dead_letters) == (1, 1)
    assert figures(checked(running)) == EVERYTHING_AGREES


@pytest.mark.thorough
def test_a_slot_that_does_not_reach_the_position_is_reported_in_time(running: World) -> None:
    running.insert(1)
    running.assert_once_each()
    running.pipeline.stop("reader")
    running.insert(1)
    with pytest.raises(TransientError, match="did not pass"), behind_the_slot(running.settings.streams(), within_s=0.5):
        pass


def test_a_connection_that_breaks_during_a_query_is_a_pipeline_error(world: World) -> None:
    def look(line: Line) -> None:
        with line.connect() as conn:
            world.conn.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
            conn.execute("SELECT 1")

    with now(world.settings) as line, pytest.raises(TransientError):
        look(line)


NEW_COLUMNS = {
    "priority": "int NOT NULL DEFAULT 3",
    "tiny": "smallint DEFAULT -7",
    "ratio": "double precision DEFAULT 0.1",
    "price": "numeric(12, 4) DEFAULT 3.5",
    "any_price": "numeric DEFAULT 3.50",
    "is_new": "boolean DEFAULT true",
    "name": "text DEFAULT 'it''s \\ \"new\" {x}'",
    "padded": "char(5) DEFAULT 'ab'",
    "due": "timestamptz DEFAULT '1999-12-31 23:59:59.999999+00'",
    "early": "timestamp DEFAULT '1960-01-01 00:00:00.25'",
    "day": "date DEFAULT '1950-02-03'",
    "ever": "date DEFAULT 'infinity'",
    "token": "uuid DEFAULT '00000000-0000-0000-0000-00000000abcd'",
    "raw": "bytea DEFAULT '\\x00ff'",
    "tags": "text[] DEFAULT '{a,\"b c\"}'",
    "settings": 'jsonb DEFAULT \'{"b": 1, "a": [1.50]}\'',
    "address": "inet DEFAULT '10.0.0.1'",
    "nothing": "int",
}


def test_rows_from_before_a_column_have_its_default_on_both_sides(running: World) -> None:
    running.insert(100)
    running.assert_once_each()
    running.conn.execute("ALTER TABLE outbox ADD COLUMN priority int NOT NULL DEFAULT 3")
    running.conn.execute("ALTER TABLE outbox ALTER COLUMN priority SET DEFAULT 4")
    running.insert(10)
    running.assert_once_each()
    assert running.clickhouse.rows("SELECT priority, count() FROM event_log GROUP BY 1 ORDER BY 1") == [
        (3, 100),
        (4, 10),
    ]
    assert figures(checked(running)) == EVERYTHING_AGREES


@pytest.mark.thorough
def test_a_default_is_not_given_to_rows_from_after_the_column_nor_to_a_renamed_one(running: World) -> None:
    running.insert(3)
    running.assert_once_each()
    running.conn.execute("ALTER TABLE outbox ADD COLUMN priority int DEFAULT 3")
    running.insert(2)
    running.assert_once_each()
    running.conn.execute("UPDATE outbox SET priority = 5")
    running.conn.execute("ALTER TABLE outbox RENAME COLUMN priority TO rank")
    running.insert(2)
    running.assert_once_each()
    found = running.clickhouse.rows("SELECT priority, rank, count() FROM event_log GROUP BY 1, 2 ORDER BY 1, 2")
    assert found == [(3, None, 5), (None, 3, 2)]


@pytest.mark.thorough
@pytest.mark.parametrize("partitioned", [False, True])
def test_defaults_of_all_types_are_the_same_on_both_sides(
    make_world: Callable[..., World], *, partitioned: bool
) -> None:
    world = make_world(setup=not partitioned)
    if partitioned:
        world.conn.execute(
            "CREATE TABLE outbox (id bigserial, event_type text NOT NULL, event_date_time timestamptz DEFAULT now(), "
            "environment text NOT NULL, event_context jsonb NOT NULL) PARTITION BY RANGE (id)"
        )
        world.conn.execute("CREATE TABLE outbox_1 PARTITION OF outbox DEFAULT")
        apply_clickhouse(world.clickhouse, world.settings, lambda _: None)
        apply_postgres(world.settings, lambda _: None)
    world.pipeline.start("worker", "reader")
    world.insert(100)
    until(lambda: world.stored() == 100)
    columns = ", ".join(f"ADD COLUMN {name} {kind}" for name, kind in NEW_COLUMNS.items())
    world.conn.execute(f"ALTER TABLE outbox {columns}".encode())
    world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, ever, priority) VALUES ('x', 'y', '{}', NULL, 5)"
    )
    until(lambda: world.stored() == 101)
    tally = checked(world)
    assert figures(tally) == EVERYTHING_AGREES, tally.ids


@pytest.mark.postgres(18)
def test_a_published_generated_column_has_one_value_by_stream_and_by_copy(world: World) -> None:
    world.conn.execute(
        "ALTER TABLE outbox ADD COLUMN kind text GENERATED ALWAYS AS (upper(event_type)) STORED, "
        "ADD COLUMN hidden text GENERATED ALWAYS AS (lower(event_type)) VIRTUAL"
    )
    world.conn.execute("ALTER PUBLICATION outhaul SET (publish_generated_columns = stored)")
    world.pipeline.start("worker", "reader")
    world.insert(20)
    world.assert_once_each()
    mutate(world, "DELETE WHERE id % 2 = 0")
    assert healed(world).stored == 10
    assert world.clickhouse.rows("SELECT kind, count() FROM event_log GROUP BY 1") == [("TESTED", 20)]
    assert figures(checked(world)) == EVERYTHING_AGREES
    mutate(world, "UPDATE kind = 'x' WHERE id = 3")
    assert checked(world).ids["differing"] == [3]
    facts = postgres_checks.ask(world.stream, world.settings.outboxes())
    assert {"kind", "hidden"} & {column.name for column in facts.columns} == {"kind"}


@pytest.mark.thorough
def test_a_generated_column_that_is_not_published_is_not_copied(world: World) -> None:
    world.conn.execute("ALTER TABLE outbox ADD COLUMN kind text GENERATED ALWAYS AS (upper(event_type)) STORED")
    world.pipeline.start("worker", "reader")
    world.insert(20)
    world.assert_once_each()
    mutate(world, "DELETE WHERE id % 2 = 0")
    assert healed(world).stored == 10
    assert figures(checked(world)) == EVERYTHING_AGREES
    assert world.ch("SELECT count() FROM system.columns WHERE table = 'event_log' AND name = 'kind'") == 0

"""What ClickHouse lacks of the outbox is named to the id, and stored once, beside a running pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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

"""Chosen rows of the outbox, stored where they are missing, or into a table of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.sink.errors import Exit
from tests.acceptance.commands import asked, outhaul
from tests.conftest import until

if TYPE_CHECKING:
    from tests.conftest import World


def lose(world: World, which: str) -> None:
    world.clickhouse.command("SYSTEM START MERGES event_log")
    world.clickhouse.command(f"ALTER TABLE event_log DELETE WHERE {which} SETTINGS mutations_sync = 2")


def test_what_is_there_stays_as_it_is_and_what_is_chosen_and_missing_is_stored(running: World) -> None:
    running.insert(100, kind="a")
    running.insert(100, kind="b")
    running.assert_once_each()
    lose(running, "id % 10 = 0")
    assert asked(running, "replay", "--type", "a", "--dry-run") == {
        "rows": 100, "missing": 10, "stored": 0, "into": "event_log"
    }  # fmt: skip
    assert running.stored() == 180
    assert asked(running, "replay", "--ids", "150, 1-20, 10-20")["stored"] == 3
    assert asked(running, "replay", "--type", "a")["stored"] == 8
    assert asked(running, "replay", "--since", "2000-01-01")["stored"] == 9
    assert asked(running, "replay")["stored"] == 0
    # Batches of an event table keep their numbers; only rows of a table that is rebuilt lose them.
    in_batches = running.ch("SELECT count() FROM event_log WHERE cdc_batch != 0")
    assert in_batches > 0
    assert asked(running, "replay", "--into", "event_log")["stored"] == 0
    assert running.ch("SELECT count() FROM event_log WHERE cdc_batch != 0") == in_batches
    running.assert_once_each()


@pytest.mark.thorough
def test_a_table_is_rebuilt_beside_the_running_pipeline(running: World) -> None:
    running.insert(2000, kind="a")
    running.insert(10, kind="b")
    running.assert_once_each()
    assert asked(running, "replay", "--type", "a", "--into", "rebuilt", "--dry-run") == {
        "rows": 2000, "missing": 2000, "stored": 0, "into": "rebuilt"
    }  # fmt: skip
    assert not running.ch("EXISTS TABLE rebuilt")
    done = asked(running, "replay", "--type", "a", "--into", "rebuilt")
    assert (done["stored"], running.ch("SELECT count() FROM rebuilt")) == (2000, 2000)
    assert asked(running, "replay", "--into", "rebuilt")["stored"] == 10
    columns = "id, event_type, event_date_time, environment, event_context, metadata_version, event_key"
    both = [running.clickhouse.rows(f"SELECT {columns} FROM {table} ORDER BY id") for table in ("event_log", "rebuilt")]
    assert both[0] == both[1]
    running.assert_once_each()


@pytest.mark.thorough
def test_a_rebuilt_table_is_used_as_soon_as_it_is_exchanged(running: World) -> None:
    running.insert(20)
    running.assert_once_each()
    asked(running, "replay", "--into", "rebuilt")
    running.clickhouse.command("EXCHANGE TABLES event_log AND rebuilt")
    # A worker stores this with tokens, before any command looks at the table.
    running.insert(10)
    until(lambda: running.ch("SELECT count() FROM event_log WHERE cdc_batch != 0") == 10, what="events are stored")
    asked(running, "verify", "--repair")
    # As operations.md says for rows that were pruned; no row was pruned here.
    running.clickhouse.command(
        "INSERT INTO event_log SELECT * REPLACE (0 AS cdc_batch) FROM rebuilt "
        f"WHERE id < {running.sql('SELECT min(id) FROM outbox')}"
    )
    running.pipeline.stop("reader")
    running.pipeline.start("reader")
    running.insert(10)
    running.assert_once_each()
    # A table that nobody expects is still refused.
    running.clickhouse.command("CREATE TABLE another AS event_log")
    running.clickhouse.command("INSERT INTO another SELECT * FROM event_log")
    running.clickhouse.command("EXCHANGE TABLES event_log AND another")
    assert "exchanged for another one" in outhaul(running, "verify", "--repair", code=Exit.CLICKHOUSE_TABLE)


def test_rows_are_chosen_by_the_position_from_which_event_log_has_them(running: World) -> None:
    running.insert(5)
    running.assert_once_each()
    end = running.sql("SELECT pg_current_wal_lsn()::text")
    running.insert(7)
    running.assert_once_each()
    assert asked(running, "replay", "--lsn", end, "--into", "rebuilt")["stored"] == 7


def test_what_cannot_be_chosen_is_refused_in_one_line(running: World) -> None:
    assert "neither an id nor a range" in outhaul(running, "replay", "--ids", "1,x", code=2)
    assert "an LSN looks like" in outhaul(running, "replay", "--lsn", "7", code=2)
    assert "no event at or after" in outhaul(running, "replay", "--lsn", "FF/0", code=2)
    assert "is too long for a table" in outhaul(running, "replay", "--into", "a" * 64, code=2)

"""Chosen rows of the outbox, stored where they are missing, or into a table of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.acceptance.commands import asked, outhaul

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
    running.assert_once_each()


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
    assert "is not a table name" in outhaul(running, "replay", "--into", "a.b", code=2)

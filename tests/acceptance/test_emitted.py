"""Events that are written into the log alone, without a table, arrive as rows of a table do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from outhaul.cdc_reader.capture.logical_message import FIRST_ORDINAL
from tests.acceptance.commands import outhaul
from tests.conftest import World, until

if TYPE_CHECKING:
    from pathlib import Path

EMIT = "SELECT pg_logical_emit_message(true, 'outhaul', %s)"
EVENT = {"event_type": "told", "environment": "test", "event_context": {"n": 1}}


def emit(world: World, count: int = 1, **more: Any) -> None:
    """Write events in one statement, which is one transaction."""
    text = json.dumps(EVENT | more)
    world.conn.execute("SELECT pg_logical_emit_message(true, 'outhaul', %s) FROM generate_series(1, %s)", [text, count])


def told(world: World) -> int:
    return int(world.ch("SELECT count() FROM event_log WHERE id < 0"))


def test_an_emitted_event_arrives_whole_and_one_rolled_back_does_not(running: World) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    content = '{"event_type": "told", "environment": "tést", "event_date_time": "2026-01-02T03:04:05.678901Z", '
    content += '"event_context": {"big": 12345678901234567890123, "exact": 1.10}, "event_key": "k"}'
    with running.conn.transaction(force_rollback=True):
        running.conn.execute(EMIT, [content])
    running.conn.execute(EMIT, [content])
    until(lambda: told(running) == 1, what="the event is stored")
    columns = "event_type, environment, event_date_time, event_context, metadata_version, event_key"
    (row,) = running.clickhouse.rows(f"SELECT {columns} FROM event_log")
    context = '{"big": 12345678901234567890123, "exact": 1.10}'
    assert row == ("told", "tést", at.replace(tzinfo=None), context, 1, "k")
    # One without a time has that of its commit.
    emit(running)
    until(lambda: told(running) == 2, what="the event is stored")
    (now,) = running.clickhouse.rows("SELECT event_date_time FROM event_log WHERE event_key IS NULL")[0]
    assert abs(datetime.now(UTC) - now.replace(tzinfo=UTC)) < timedelta(minutes=1)


def test_what_is_no_event_is_a_dead_letter_and_verify_does_not_count_the_others(running: World) -> None:
    running.insert(3)
    emit(running, event_type=None)
    emit(running)
    until(lambda: told(running) == 1, what="the event is stored")
    # Marks that we write ourselves are no events.
    outhaul(running, "verify", "--json")
    emit(running)
    until(lambda: told(running) == 2, what="the event is stored")
    assert "messages_ignored" not in running.pipeline.log("reader")
    running.conn.execute("SELECT pg_logical_emit_message(false, 'outhaul', 'a stray')")
    running.conn.execute("SELECT pg_logical_emit_message(true, 'theirs', 'of another app')")
    letters = "SELECT row, reason FROM event_log_dead_letters"
    (letter,) = until(lambda: running.clickhouse.rows(letters), what="the dead letter is stored")
    assert json.loads(json.loads(letter[0])["message"])["event_type"] is None
    assert letter[1] == "not an event: event_type is missing"
    until(lambda: "messages_ignored" in running.pipeline.log("reader"), what="the reader says that it left one out")
    found = json.loads(outhaul(running, "verify", "--deep", "--json"))
    assert (found["missing"], found["extra"]) == (0, 0)


@pytest.mark.thorough
def test_rows_and_messages_of_one_transaction_are_stored_once_each_whatever_dies(world: World, tmp_path: Path) -> None:
    points = tmp_path / "points"
    points.mkdir()
    world.pipeline.start("worker", "reader", OUTHAUL_FAILPOINTS=str(points))
    world.insert()
    emit(world)
    until(lambda: world.stored() == 2, what="both are stored")
    # A worker dies with the batch stored and nobody told; the reader dies and asks what ClickHouse holds.
    (points / "task.stored").write_text("kill")
    for _ in range(20):
        with world.conn.transaction():
            emit(world, 30)
            world.insert(20)
            emit(world, 20)
    until((points / "task.stored.fired").exists, what="the worker is dead")
    world.pipeline.kill("reader")
    world.pipeline.start("reader", OUTHAUL_FAILPOINTS=str(points))
    until(lambda: told(world) >= 1001 and world.stored() >= 1402, what="all is stored")
    counts = "count(), uniqExact(cdc_lsn, cdc_ordinal), uniqExact(id), countIf(cdc_ordinal >= {})"
    (found,) = world.clickhouse.rows(f"SELECT {counts.format(FIRST_ORDINAL)} FROM event_log")
    assert found == (1402, 1402, 1402, 1001)

"""Several outboxes in one publication: each has its own tables in ClickHouse, all share reader, slot and workers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.commands import asked, outhaul
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Callable

ORDERS, AUDIT = "public.outbox", "Audit.events"
TABLES = {ORDERS: "event_log", AUDIT: "audit_log"}


@pytest.fixture
def both(make_world: Callable[..., World]) -> World:
    """Run a pipeline over two outboxes; the second has a name that needs quotes, in a schema of its own."""
    world = make_world(setup=False, more_tables=f"{AUDIT}=audit_log")
    world.conn.execute('CREATE SCHEMA "Audit"')
    outhaul(world, "setup")
    world.pipeline.start("worker")
    world.pipeline.start("reader")
    return world


def write(world: World, count: int = 10, kind: str = "tested") -> None:
    """Commit `count` events to each outbox, in turn, in one transaction."""
    with world.conn.transaction():
        for number in range(count):
            for table in ("public.outbox", '"Audit".events'):
                world.conn.execute(
                    f"INSERT INTO {table} (event_type, environment, event_context) "
                    "VALUES (%s, 'test', jsonb_build_object('n', %s::int, 'of', %s::text))".encode(),
                    [kind, number, table],
                )


def counts(world: World) -> dict[str, int]:
    return {name: int(world.ch(f"SELECT count() FROM {name}")) for name in TABLES.values()}


def reports(world: World, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
    """Return the JSON that a command prints for each outbox."""
    lines = outhaul(world, *arguments, "--json", code=code).splitlines()
    return {one["table"]: one for one in map(json.loads, filter(lambda line: line.startswith("{"), lines))}


def assert_agree(world: World, rows: int) -> None:
    until(lambda: counts(world) == dict.fromkeys(TABLES.values(), rows), what=f"{rows} rows in each")
    found = reports(world, "verify", "--deep")
    assert list(found) == [ORDERS, AUDIT]
    for one in found.values():
        assert (one["rows"], one["missing"], one["extra"], one["differing"], one["repeated"]) == (rows, 0, 0, 0, 0)


def test_each_outbox_goes_to_its_own_table_through_kills_of_reader_and_worker(both: World) -> None:
    write(both, 200)
    until(lambda: both.stored() >= 50)
    both.pipeline.kill("reader")
    write(both, 200)
    both.pipeline.kill("worker")
    both.pipeline.start("worker")
    both.pipeline.start("reader")
    write(both, 100)
    assert_agree(both, 500)
    mixed = "SELECT count() FROM {} WHERE position(event_context, '{}') = 0"
    assert both.ch(mixed.format("event_log", "public.outbox")) == 0
    assert both.ch(mixed.format("audit_log", "Audit")) == 0
    status = asked(both, "status")
    assert (status["rows"], status["dead_letters"], status["wrong"]) == (1000, 0, [])
    doctor = outhaul(both, "doctor", code=None if status["wrong"] else 0)
    assert f"Outbox {AUDIT}" in doctor


@pytest.mark.thorough
def test_a_dead_letter_stands_beside_the_table_of_its_outbox_and_comes_back_from_there(both: World) -> None:
    both.conn.execute(
        'INSERT INTO "Audit".events (event_type, event_date_time, environment, event_context) '
        "VALUES ('late', 'infinity', 'test', '{}')"
    )
    write(both, 1)
    until(lambda: counts(both) == {"event_log": 1, "audit_log": 1})
    until(lambda: both.ch("SELECT count() FROM audit_log_dead_letters") == 1)
    assert both.ch("SELECT count() FROM event_log_dead_letters") == 0
    assert asked(both, "status")["dead_letters"] == 1
    found = reports(both, "dlq", "list")
    assert [found[ORDERS]["total"], found[AUDIT]["total"]] == [0, 1]
    assert "--table" in outhaul(both, "dlq", "retry", "--all", code=2)
    assert "not captured" in outhaul(both, "dlq", "retry", "--all", "--table", "public.nothing", code=2)
    both.clickhouse.command(
        "ALTER TABLE audit_log_dead_letters UPDATE row = replaceAll(row, 'infinity', '2026-01-01 00:00:00+00') "
        "WHERE 1 SETTINGS mutations_sync = 2"
    )
    assert len(asked(both, "dlq", "retry", "--all", "--table", AUDIT)["retried"]) == 1
    assert counts(both) == {"event_log": 1, "audit_log": 2}
    assert both.ch("SELECT count() FROM audit_log_dead_letters") == 0


@pytest.mark.thorough
def test_what_is_missing_in_any_of_them_is_named_and_healed(both: World) -> None:
    write(both, 50)
    until(lambda: counts(both) == {"event_log": 50, "audit_log": 50})
    for table in TABLES.values():
        both.clickhouse.command(f"DELETE FROM {table} WHERE id IN (7, 8)")
    found = reports(both, "verify", code=1)
    assert [one["ids"]["missing"] for one in found.values()] == [[7, 8], [7, 8]]
    assert list(reports(both, "verify", "--table", AUDIT, code=1)) == [AUDIT]
    assert reports(both, "verify", "--repair", "--table", AUDIT)[AUDIT]["repaired"] == 2
    assert counts(both) == {"event_log": 48, "audit_log": 50}
    assert reports(both, "backfill")[ORDERS]["copied"] == 2
    done = asked(both, "replay", "--table", AUDIT, "--ids", "1-10", "--into", "audit_again")
    assert (done["stored"], both.ch("SELECT count() FROM audit_again")) == (10, 10)

    both.pipeline.stop("reader")
    write(both, 30)
    plan = asked(both, "slot", "reset", "--recreate", "--dry-run")
    assert (plan["unread"]["events"], plan["unread"]["tables"]) == (60, {ORDERS: 30, AUDIT: 30})
    assert asked(both, "slot", "reset", "--recreate", "--yes")["stored"] == 60
    both.pipeline.start("reader")
    write(both, 1)
    assert_agree(both, 81)

    for table in ("public.outbox", '"Audit".events'):
        both.conn.execute(f"UPDATE {table} SET event_date_time = now() - interval '9 days' WHERE id <= 20".encode())
    pruned = reports(both, "prune", "--older-than", "7d", "--yes", code=1)
    # The rows are older than the outbox said when they were stored, so nothing proves that they are stored.
    assert {one["removed"] for one in pruned.values()} == {0}
    assert [one["lacking"] for one in pruned.values()] == [20, 20]


def test_an_outbox_that_does_not_exist_or_is_not_published_is_one_clear_line(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.env["OUTHAUL_MORE_TABLES"] = f"{AUDIT}=audit_log"
    assert "'audit_log'" in outhaul(world, "dlq", "list", code=None)
    assert f"no table {AUDIT}" in outhaul(world, "verify", code=None)
    world.conn.execute('CREATE SCHEMA "Audit"; CREATE TABLE "Audit".events (LIKE public.outbox)')
    line = outhaul(world, "reader", code=None)
    assert 'does not have "Audit".events' in line
    assert 'ALTER PUBLICATION outhaul ADD TABLE "Audit".events' in line

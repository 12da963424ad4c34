"""The whole way, with reader and worker as the processes they are in production."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.deploy.local.stack import Stack
from tests import launch
from tests.acceptance.load import wait_for_more, writers
from tests.conftest import World, until


def test_a_row_from_bare_psql_arrives_whole(running: World) -> None:
    running.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context, metadata_version) "
        "VALUES ('user_created', "
        "'2026-03-01 12:00:00.123456+02', 'prod', '{\"name\": \"Zoë 🚀\", \"n\": 12345678901234567890}', 7)"
    )
    until(lambda: running.stored() == 1, what="the row is stored")
    row = running.clickhouse.rows(
        "SELECT id, event_type, toString(event_date_time), environment, event_context, metadata_version, event_key, "
        "cdc_source, cdc_ordinal, cdc_lsn > 0, cdc_committed_at <= cdc_ingested_at FROM event_log"
    )[0]
    text = running.sql("SELECT event_context::text FROM outbox")
    assert row == (
        1, "user_created", "2026-03-01 10:00:00.123456", "prod", text, 7, None, running.settings.source, 0, 1, 1
    )  # fmt: skip


def test_a_row_arrives_within_two_seconds(running: World) -> None:
    """The quickest of some: a machine that does other things, too, delays this one or that."""

    def arrival_s() -> float:
        before, started = running.stored(), time.monotonic()
        running.insert()
        until(lambda: running.stored() > before, what="the row is stored")
        return time.monotonic() - started

    assert any(arrival_s() < 2.0 for _ in range(10))


def test_a_rolled_back_row_never_arrives(running: World) -> None:
    with psycopg.connect(running.dsn) as conn:
        conn.execute("INSERT INTO outbox (event_type, environment, event_context) VALUES ('never', 'test', '{}')")
        conn.rollback()
        conn.execute("INSERT INTO outbox (event_type, environment, event_context) VALUES ('a', 'test', '{}')")
        conn.execute("SAVEPOINT s")
        conn.execute("INSERT INTO outbox (event_type, environment, event_context) VALUES ('never', 'test', '{}')")
        conn.execute("ROLLBACK TO SAVEPOINT s")
        conn.execute("INSERT INTO outbox (event_type, environment, event_context) VALUES ('b', 'test', '{}')")
        conn.commit()
    running.assert_once_each()
    assert running.clickhouse.rows("SELECT event_type FROM event_log ORDER BY id") == [("a",), ("b",)]


def test_the_slot_stands_still_while_clickhouse_is_shut_and_moves_when_it_opens(running: World, stack: Stack) -> None:
    running.insert()
    running.assert_once_each()
    front = stack.status()["clickhouse"].pid
    assert front is not None
    os.kill(front, signal.SIGSTOP)
    try:
        running.insert(100)
        end = running.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        until(
            lambda: (state := running.reader_state()) and state.in_flight_rows == 100,
            what="the reader has sent the rows",
        )
        held = []
        for _ in range(50):
            time.sleep(0.05)
            held.append(running.confirmed())
        assert max(held) < end
    finally:
        os.kill(front, signal.SIGCONT)
    running.assert_once_each()
    until(lambda: running.confirmed() >= end, what="the slot moves on")


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("reader",), id="reader", marks=pytest.mark.thorough),
        pytest.param(("worker",), id="worker", marks=pytest.mark.thorough),
        pytest.param(("worker", "reader"), id="all"),
    ],
)
@pytest.mark.parametrize("how", [pytest.param("stop", marks=pytest.mark.thorough), "kill"])
def test_stopping_and_starting_under_load_loses_and_repeats_nothing(
    running_pool: World, names: tuple[str, ...], how: str
) -> None:
    with writers(running_pool):
        for _ in range(2):
            wait_for_more(running_pool)
            getattr(running_pool.pipeline, how)(*names)
            running_pool.pipeline.start(*names)
    running_pool.assert_once_each()
    running_pool.pipeline.check()


@pytest.mark.thorough
@pytest.mark.parametrize("service", ["redis", "clickhouse"])
def test_killing_a_server_under_load_loses_and_repeats_nothing(running: World, stack: Stack, service: str) -> None:
    with writers(running):
        for _ in range(2):
            stack.kill(service)
            stack.up([service])
            wait_for_more(running, f"events flow after {service} was killed")
    running.assert_once_each()


def test_killing_postgres_under_load_loses_and_repeats_nothing(running: World, stack: Stack) -> None:
    with writers(running, interrupted=True):
        wait_for_more(running)
        stack.kill("postgres")
        stack.up(["postgres"])
    running.conn.close()
    running.conn = psycopg.connect(running.dsn, autocommit=True)
    running.insert(10)
    running.assert_once_each()


def test_status_says_fine_then_names_what_is_wrong(running: World, stack: Stack) -> None:
    running.insert(5)
    running.assert_once_each()

    def status() -> tuple[int, Any]:
        done = launch.run("status", "--json", env=running.env, timeout_s=60)
        return done.returncode, json.loads(done.stdout)

    # The reader publishes its state once a second.
    until(lambda: (shown := status())[0] == 0 and shown[1]["reader"]["events_stored"] == 5, what="status is fine")
    code, found = status()
    assert (code, found["wrong"], found["rows"], found["slot"]["active"]) == (0, [], 5, True)
    running.pipeline.stop()
    until(lambda: running.reader_state() is None, what="the reader's state expires")
    code, found = status()
    assert code == 1
    assert any("outhaul reader" in line for line in found["wrong"])


def test_rows_out_of_range_become_dead_letters_whole_and_the_rest_is_stored(running: World) -> None:
    running.conn.execute(
        "INSERT INTO outbox (event_type, event_date_time, environment, event_context) VALUES "
        "('fine', '2026-01-01Z', 'test', '{}'), ('never', 'infinity', 'test', '{\"a\": \"ü\"}'), "
        "('old', '0044-03-15 00:00:00Z BC', 'test', '{}'), ('late', '12000-01-01Z', 'test', '{}'), "
        "('none', NULL, 'test', '{}')"
    )
    running.assert_once_each(dead=3)
    # They are a batch of their own.
    until(lambda: running.ch("SELECT count() FROM event_log_dead_letters") == 3, what="the dead letters are stored")
    rows = running.clickhouse.rows("SELECT row, reason, cdc_ordinal FROM event_log_dead_letters ORDER BY cdc_ordinal")
    values = [json.loads(row[0])["event_date_time"] for row in rows]
    assert values == ["infinity", "0044-03-15 00:00:00+00 BC", "12000-01-01 00:00:00+00"]
    assert json.loads(rows[0][0])["event_context"] == '{"a": "ü"}'
    assert [row[2] for row in rows] == [1, 2, 3]
    same = running.ch("SELECT event_date_time = cdc_committed_at FROM event_log WHERE event_type = 'none'")
    assert same == 1
    until(lambda: running.confirmed() >= running.sql("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn") - 500)


def test_a_row_that_clickhouse_refuses_is_found_by_halving_and_set_aside(make_world: Callable[..., World]) -> None:
    world = make_world(context_type="JSON")
    world.pipeline.start("worker", "reader")
    world.insert(60)
    # The JSON type takes objects only, jsonb takes any value.
    world.conn.execute("INSERT INTO outbox (event_type, environment, event_context) VALUES ('bad', 'test', '[1, 2]')")
    world.insert(60)
    world.assert_once_each(dead=1)
    row, reason = world.clickhouse.rows("SELECT row, reason FROM event_log_dead_letters")[0]
    assert '"event_context": "[1, 2]"' in row
    assert reason.startswith("ClickHouse: ")


def test_a_second_reader_stands_by_and_takes_over(running: World, tmp_path: Path) -> None:
    logs = tmp_path / "second"
    logs.mkdir()
    second = Pipeline(running.env, logs)
    try:
        second.start("reader")
        until(lambda: "standing_by" in second.log("reader"), what="the second reader stands by")
        running.pipeline.kill("reader")
        running.insert(7)
        running.assert_once_each()
    finally:
        second.kill()


def test_a_new_column_is_captured_and_added(running: World) -> None:
    running.insert(3)
    running.conn.execute("ALTER TABLE outbox ADD COLUMN tenant uuid, ADD COLUMN amount numeric")
    running.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, tenant, amount) "
        "VALUES ('x', 'test', '{}', '7b2a1c1e-0000-4000-8000-00000000000a', 12345678901234567890.123)"
    )
    running.assert_once_each()
    row = running.clickhouse.rows("SELECT toString(tenant), amount FROM event_log WHERE event_type = 'x'")[0]
    assert row == ("7b2a1c1e-0000-4000-8000-00000000000a", "12345678901234567890.123")
    assert running.ch("SELECT countIf(tenant IS NULL) FROM event_log") == 3


def test_a_legacy_outbox_with_a_processed_flag_is_captured_unchanged(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    world.conn.execute(
        "CREATE TABLE outbox (id bigserial PRIMARY KEY, event_type varchar(255) NOT NULL, "
        "event_date_time timestamptz DEFAULT now(), environment varchar(255) NOT NULL, event_context jsonb NOT NULL, "
        "metadata_version bigint DEFAULT 1, processed boolean NOT NULL DEFAULT false)"
    )
    launch.run("setup", env=world.env, timeout_s=60).check_returncode()
    world.pipeline.start("worker", "reader")
    world.insert(5)
    world.conn.execute("UPDATE outbox SET processed = true")
    world.conn.execute("DELETE FROM outbox WHERE id = 1")
    world.insert(5)
    until(lambda: world.stored() == 10)
    assert world.sql("SELECT count(*) FROM outbox") == 9
    columns = {
        row[0] for row in world.clickhouse.rows("SELECT name FROM system.columns WHERE database = currentDatabase()")
    }
    assert "processed" not in columns


def test_setup_is_idempotent_and_printable(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    for _ in range(2):
        launch.run("setup", env=world.env, timeout_s=60).check_returncode()
    printed = launch.run("setup", "--print-sql", env=world.env, timeout_s=60).stdout
    assert "CREATE PUBLICATION outhaul" in printed
    assert world.settings.slot in printed
    assert "non_replicated_deduplication_window = 10000" in printed

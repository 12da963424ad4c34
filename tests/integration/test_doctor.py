"""The doctor as a whole: bounded when a server is silent, and it changes nothing."""

from __future__ import annotations

import socket
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis as redis_client
from pydantic import SecretStr

from outhaul.cdc_reader.operate.doctor import checklist, monitoring_checks
from outhaul.cdc_reader.operate.doctor.finding import State
from tests.conftest import World, until
from tests.integration.doctor_findings import (
    changed,
    sections,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.deploy.local.stack import Stack

_LONG_S = 100.0


@contextmanager
def listening() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def test_sentry_and_the_metrics_port_are_tried_where_they_are_set(world: World) -> None:
    assert monitoring_checks.ask(world.settings) == ()
    with listening() as port:
        assert monitoring_checks.sentry(f"http://key@127.0.0.1:{port}/1").state is State.PASS
        assert monitoring_checks.metrics(port).state is State.WARN
    refused = monitoring_checks.sentry(f"http://very-secret@127.0.0.1:{port}/1")
    assert (refused.state, "very-secret" in f"{refused}") == (State.WARN, False)
    assert monitoring_checks.sentry("http://very-secret").found == "the DSN is malformed"
    settings = world.settings.model_copy(update={"sentry_dsn": SecretStr("x"), "metrics_port": port})
    assert [finding.check for finding in monitoring_checks.ask(settings)] == ["Sentry", "metrics"]


def test_the_metrics_port_of_a_reader_answers(world: World) -> None:
    with listening() as port:
        pass
    world.pipeline.start("reader", OUTHAUL_METRICS_PORT=str(port))
    until(world.reader_state, what="the reader runs")
    assert monitoring_checks.metrics(port).state is State.PASS


@pytest.mark.parametrize("name", ["postgres_dsn", "clickhouse_url", "redis_url"])
def test_a_server_that_never_answers_costs_its_section_and_a_bounded_time(world: World, name: str) -> None:
    with listening() as port:
        scheme = {"postgres_dsn": "postgresql", "clickhouse_url": "http", "redis_url": "redis"}[name]
        begun = time.monotonic()
        # A limit that no busy machine reaches: each silent server costs its own few seconds.
        found = sections(changed(world, **{name: f"{scheme}://x@127.0.0.1:{port}/0"}), within_s=_LONG_S)
        assert time.monotonic() - begun < _LONG_S
    silent = {"postgres_dsn": {"Postgres"}, "clickhouse_url": {"ClickHouse"}, "redis_url": {"Redis", "Celery"}}[name]
    for group in ("Postgres", "ClickHouse", "Redis", "Celery"):
        assert (found[group].keys() == {"answers"}) is (group in silent), group
    for group in silent:
        assert found[group]["answers"].state is State.FAIL
    assert (found["Both sides"].keys() == {"comparison"}) is bool(silent & {"Postgres", "ClickHouse"})
    assert "measured from here" in found["Clocks"]["clocks"].found


def test_the_doctor_waits_no_longer_than_its_limit(world: World) -> None:
    with listening() as port:
        begun = time.monotonic()
        found = sections(changed(world, postgres_dsn=f"postgresql://x@127.0.0.1:{port}/x"), within_s=1.0)
        assert time.monotonic() - begun < checklist.WITHIN_S
    assert found["Postgres"]["answers"].found == "Postgres has not answered within 1 s"


def test_a_checkup_changes_nothing_but_the_table_of_the_trials(world: World, stack: Stack) -> None:
    def all_there_is() -> tuple[Any, ...]:
        catalogue = world.conn.execute(
            "SELECT slot_name, plugin, to_jsonb(slot) ->> 'failover', confirmed_flush_lsn "
            "FROM pg_replication_slots AS slot WHERE slot_name = %s",
            [world.settings.slot],
        ).fetchall()
        parts = world.clickhouse.rows(
            "SELECT table, count() FROM system.parts WHERE database = currentDatabase() "
            "AND table NOT LIKE 'event_log_trial%' GROUP BY table ORDER BY table"
        )
        tables = world.clickhouse.rows("SELECT create_table_query FROM system.tables "
                                       "WHERE database = currentDatabase() ORDER BY name")  # fmt: skip
        with redis_client.Redis.from_url(world.env["OUTHAUL_REDIS_URL"]) as client:
            ours = sorted(key for key in client.keys("*") if world.settings.source.encode() in key)
            # When kombu's queues for answers end.
            ours = [key for key in ours if not key.endswith(b"_kombu.binding_deadlines")]
        return catalogue, parts, tables, ours

    before = all_there_is()
    checklist.examine(world.settings)
    assert all_there_is() == before

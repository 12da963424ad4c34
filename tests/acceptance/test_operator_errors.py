"""Commands before servers that are not there, or not as they must be: one line each, and nothing is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.acceptance.commands import outhaul_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import World

COMMANDS = {
    "slot show": ["slot", "show"],
    "slot reset to now": ["slot", "reset", "--to", "now", "--yes"],
    "slot reset to confirmed": ["slot", "reset", "--to", "confirmed", "--yes"],
    "slot advance": ["slot", "advance", "FFFF/0", "--yes"],
    "slot drop": ["slot", "drop", "--yes"],
    "verify": ["verify", "--wait", "1"],
    "verify and repair": ["verify", "--repair", "--wait", "1"],
    "backfill": ["backfill", "--wait", "1"],
    "replay": ["replay", "--wait", "1", "--into", "elsewhere"],
}


@pytest.fixture
def idle(make_world: Callable[..., World]) -> World:
    world = make_world()
    world.insert(3)
    return world


def refused(world: World, name: str, expected: str, **env: str) -> None:
    before = world.sql(
        "SELECT slot_name || confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = slot_name"
    )
    code, _, said = outhaul_here({**world.env, **env}, *COMMANDS[name])
    assert code > 0
    errors = [line for line in said.splitlines() if line.startswith("outhaul: ")]
    assert len(errors) == 1, said
    assert expected in errors[0]
    assert "Traceback" not in said
    now = world.sql(
        "SELECT slot_name || confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = slot_name"
    )
    assert now == before
    assert world.stored() == 0


def test_without_postgres_nothing_is_done(idle: World) -> None:
    for name in COMMANDS:
        refused(idle, name, "OUTHAUL_POSTGRES_DSN", OUTHAUL_POSTGRES_DSN=make_conninfo(idle.dsn, port=1))


def test_without_clickhouse_nothing_is_done(idle: World) -> None:
    for name in COMMANDS:
        if name != "slot advance":
            refused(idle, name, "does not answer", OUTHAUL_CLICKHOUSE_URL="http://127.0.0.1:1/x")


def test_without_redis_nothing_is_done(idle: World) -> None:
    refused(idle, "slot reset to now", "Redis does not answer", OUTHAUL_REDIS_URL="redis://127.0.0.1:1/0")


def test_a_refused_login_is_an_error_that_names_it(idle: World) -> None:
    dsn = make_conninfo(idle.dsn, user="nobody_of_that_name")
    for name in COMMANDS:
        refused(idle, name, "Postgres refuses the login", OUTHAUL_POSTGRES_DSN=dsn)


def test_a_missing_table_is_an_error_that_names_it(idle: World) -> None:
    for name in COMMANDS:
        if name != "slot advance":
            refused(idle, name, "has no table", OUTHAUL_CLICKHOUSE_TABLE="elsewhere_too")
            refused(idle, name, "has no table", OUTHAUL_TABLE="public.elsewhere")


def test_a_cluster_that_clickhouse_does_not_know_is_an_error(world: World) -> None:
    code, _, said = outhaul_here(world.env, "setup", "--cluster", "nowhere")
    assert code > 0
    (error,) = (line for line in said.splitlines() if line.startswith("outhaul: "))
    assert "'nowhere'" in error


def test_a_second_command_exits_at_once_and_names_the_reason(idle: World) -> None:
    with psycopg.connect(idle.dsn, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"outhaul slot {idle.settings.slot}"])
        refused(idle, "slot reset to now", "another command is changing")

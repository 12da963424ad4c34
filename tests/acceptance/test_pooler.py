"""A pooler as OUTHAUL_POSTGRES_DSN: it is named, whatever it lets through, and no command tries without end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.sink.errors import Exit
from tests import launch, roles
from tests.pgbouncer import needs_pgbouncer, pgbouncer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import World

pytestmark = needs_pgbouncer

IGNORED = {"ignore_startup_parameters": "options, replication, extra_float_digits"}
TRANSACTION = {"pool_mode": "transaction"}


def assert_named(world: World, dsn: str, *command: str) -> None:
    done = launch.run(*command, env=world.env | {"OUTHAUL_POSTGRES_DSN": dsn}, timeout_s=90)
    said = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in said
    assert "leads to a pooler" in said, said
    assert "Set OUTHAUL_POSTGRES_DSN to Postgres itself" in said
    if command[0] != "doctor":
        assert done.returncode == Exit.POSTGRES_LOGIN, said


def give_a_german_calendar(world: World) -> None:
    for name, value in (("DateStyle", "German, DMY"), ("TimeZone", "Europe/Berlin"), ("IntervalStyle", "postgres")):
        for role in (world.conn.info.user, roles.READER):
            world.conn.execute(f"ALTER ROLE {role} IN DATABASE {world.conn.info.dbname} SET {name} = '{value}'")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        IGNORED,
        pytest.param({"ignore_startup_parameters": "options"}, marks=pytest.mark.thorough),
        TRANSACTION,
        pytest.param(TRANSACTION | IGNORED, marks=pytest.mark.thorough),
        pytest.param(IGNORED | {"pool_mode": "statement"}, marks=pytest.mark.thorough),
    ],
    ids=str,
)
def test_a_reader_and_a_doctor_behind_a_pooler_name_it(world: World, tmp_path: Path, settings: dict[str, str]) -> None:
    give_a_german_calendar(world)
    with pgbouncer(world.dsn, tmp_path, **settings) as dsn:
        assert_named(world, dsn, "reader")
        assert_named(world, dsn, "doctor")


def test_no_command_works_in_sessions_that_it_shares(world: World, tmp_path: Path) -> None:
    give_a_german_calendar(world)
    with pgbouncer(world.dsn, tmp_path, **TRANSACTION) as dsn:
        for command in (
            ("setup",),
            ("verify", "--deep"),
            ("backfill",),
            ("slot", "reset", "--recreate", "--yes"),
            ("prune", "--older-than", "0s", "--yes"),
        ):
            assert_named(world, dsn, *command)


@pytest.mark.thorough
def test_a_command_in_a_session_of_its_own_works_through_a_pooler(world: World, tmp_path: Path) -> None:
    give_a_german_calendar(world)
    with pgbouncer(world.dsn, tmp_path) as dsn:
        done = launch.run("status", "--json", env=world.env | {"OUTHAUL_POSTGRES_DSN": dsn}, timeout_s=90)
    assert "Traceback" not in done.stdout + done.stderr
    assert '"slot"' in done.stdout

"""Managed Postgres, imitated on a real server: the roles and settings that a provider's servers show.

No provider's server could be reached: what the hints say was looked up, and is not run.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from outhaul.cdc_reader.operate.doctor.finding import State
from outhaul.cdc_reader.operate.setup import apply_postgres, print_sql
from outhaul.cdc_reader.postgres.connect import check_stream
from outhaul.cdc_reader.postgres.preflight import Server, check_server
from outhaul.cdc_reader.postgres.provider import PROVIDERS, SELF_RUN, Provider, provider_of
from outhaul.cdc_reader.postgres.query import connect
from outhaul.deploy.local.stack import Stack
from outhaul.sink.errors import Exit, FatalError, PipelineError
from tests.conftest import World, until
from tests.integration.doctor_findings import changed, of_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from outhaul.sink.settings import Settings

RDS, NEON = PROVIDERS[0], PROVIDERS[-1]
ALL = pytest.mark.parametrize("provider", PROVIDERS, ids=[one.name.split()[-1] for one in PROVIDERS])


@contextmanager
def imitated(world: World, provider: Provider) -> Iterator[Settings]:
    """Let the server show a provider's role; yield the settings with a login that cannot replicate."""
    login = f"shop_{world.settings.slot}"
    names = dict.fromkeys([provider.role, "rds_replication", login])
    for name in names:
        world.conn.execute(f"CREATE ROLE {name} LOGIN".encode())
    world.conn.execute(f"GRANT outhaul_reader TO {login}".encode())
    try:
        yield changed(world, postgres_dsn=make_conninfo(world.dsn, user=login))
    finally:
        for name in names:
            world.conn.execute(f"DROP OWNED BY {name}".encode())
            world.conn.execute(f"DROP ROLE {name}".encode())


@ALL
def test_a_provider_is_known_by_a_role_or_else_by_a_setting(world: World, provider: Provider) -> None:
    def found() -> Provider:
        with connect(world.dsn) as conn:
            return provider_of(conn)

    assert found() is SELF_RUN
    with imitated(world, provider):
        assert found() is provider
    if provider.setting:
        name = world.sql("SELECT current_database()")
        world.conn.execute(f"ALTER DATABASE {name} SET {provider.setting} = 'on'".encode())
        assert found() is provider


@ALL
def test_a_login_that_cannot_replicate_gets_the_hint_that_works_there(world: World, provider: Provider) -> None:
    with imitated(world, provider) as settings:
        role = f"shop_{world.settings.slot}"
        seen = of_postgres(world, settings)
        assert (seen["replication connection"].state, seen["provider"].state) == (State.FAIL, State.PASS)
        assert seen["replication connection"].fix == provider.grant(role)
        assert provider.name in seen["provider"].found
        assert not [one for one in seen.values() if "ALTER SYSTEM" in one.fix]
        with pytest.raises(FatalError) as refused:
            check_stream(settings, Server(1))
        assert (refused.value.exit_code, refused.value.todo) == (Exit.ROLE, provider.grant(role))
        with pytest.raises(PipelineError) as refused_setup:
            apply_postgres(settings, lambda _: None)
        assert refused_setup.value.todo == provider.grant(role)
        printed = next(iter(print_sql(settings)))
        assert provider.name in printed
        assert provider.make_logical() in printed
        assert provider.grant("your_reader") in printed
        assert all(line.startswith("-- ") for line in printed.splitlines())


def test_what_decides_is_whether_a_replication_connection_opens(world: World) -> None:
    """The login may replicate, but its session runs as a role without the attribute, as on Amazon RDS."""
    with imitated(world, RDS):
        role = f"shop_{world.settings.slot}"
        login = f"login_{world.settings.slot}"
        world.conn.execute(f"GRANT rds_replication TO {role}".encode())
        world.conn.execute(f"CREATE ROLE {login} LOGIN REPLICATION IN ROLE {role}".encode())
        world.conn.execute(f"ALTER ROLE {login} SET role = '{role}'".encode())
        try:
            dsn = make_conninfo(world.dsn, user=login)
            with psycopg.connect(dsn) as conn:
                attributes = "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user"
                assert conn.execute(attributes).fetchone() == (False,)
            assert of_postgres(world, changed(world, postgres_dsn=dsn))["replication connection"].state is State.PASS
            world.pipeline.start("worker")
            world.pipeline.start("reader", OUTHAUL_POSTGRES_DSN=dsn)
            world.insert(20)
            world.assert_once_each()
            world.pipeline.stop()
        finally:
            world.conn.execute(f"DROP ROLE {login}".encode())


def test_an_idle_slot_that_the_provider_drops_is_said_before_the_first_event(world: World) -> None:
    with imitated(world, NEON) as settings:
        world.conn.execute(f"ALTER ROLE shop_{world.settings.slot} REPLICATION".encode())
        assert of_postgres(world, settings)["idle slots"].fix == "OUTHAUL_HEAL=auto"
        auto = settings.model_copy(update={"heal": "auto"})
        assert of_postgres(world, auto)["idle slots"].state is State.PASS
        told: list[str] = []
        apply_postgres(changed(world), told.append)
        assert "OUTHAUL_HEAL=auto" in told[-1]
        world.pipeline.start("reader")
        until(lambda: "idle_slots_are_dropped" in world.pipeline.log("reader"), what="the reader says it")
        world.pipeline.stop()


def test_without_wal_level_logical_each_provider_is_told_its_own_switch(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.up(["postgres"])
    dsn = stack.env()["OUTHAUL_POSTGRES_DSN"]
    try:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("ALTER SYSTEM SET wal_level = replica")
        stack.down(["postgres"])
        stack.up(["postgres"])
        for provider in (SELF_RUN, *PROVIDERS):
            with psycopg.connect(dsn, autocommit=True) as conn:
                if provider.role:
                    conn.execute(f"CREATE ROLE {provider.role}".encode())
                with connect(dsn) as asked, pytest.raises(FatalError) as caught:
                    check_server(asked)
                assert (caught.value.exit_code, caught.value.todo) == (Exit.WAL_LEVEL, provider.make_logical())
                if provider.role:
                    conn.execute(f"DROP ROLE {provider.role}".encode())
    finally:
        stack.down(["postgres"])

"""Alembic and the outbox: what setup has made is what our table says, and what a migration makes is captured."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata, render_python_code
from alembic.autogenerate.api import produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase

from outhaul import sqlalchemy as by_sqlalchemy
from outhaul.cdc_reader.operate.setup import apply_postgres

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tests.conftest import World

COMPARED = {"compare_type": True, "compare_server_default": True}


class Base(DeclarativeBase):
    """An app's own."""


class OutboxEvent(by_sqlalchemy.OutboxEventMixin, Base):
    """The outbox as a class."""


def as_a_table() -> sa.MetaData:
    metadata = sa.MetaData()
    by_sqlalchemy.outbox_table(metadata)
    return metadata


def migrate(conn: Connection, metadata: sa.MetaData) -> str:
    """Write a migration as `alembic revision --autogenerate` does, and run it."""
    context = MigrationContext.configure(conn, opts=COMPARED)
    found = produce_migrations(context, metadata)
    assert found.upgrade_ops is not None
    code = render_python_code(found.upgrade_ops, migration_context=context)
    names = {"sa": sa, "postgresql": postgresql}
    with Operations.context(context) as op:
        exec(textwrap.dedent(f"    {code}"), names | {"op": op})
    return code


def engine_of(world: World) -> sa.Engine:
    return sa.create_engine("postgresql+psycopg://", connect_args=conninfo_to_dict(world.dsn))


def test_autogenerate_finds_nothing_to_change_in_what_setup_has_made(world: World) -> None:
    engine = engine_of(world)
    with engine.connect() as conn:
        context = MigrationContext.configure(conn, opts=COMPARED)
        assert compare_metadata(context, as_a_table()) == []
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_table_that_a_migration_has_made_is_the_same_to_setup(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False)
    engine = engine_of(world)
    with engine.begin() as conn:
        code = migrate(conn, as_a_table())
    assert "outhaul" not in code
    apply_postgres(world.settings, lambda _: None)
    columns = "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute WHERE attnum > 0 "
    theirs = world.conn.execute(f"{columns} AND attrelid = 'outbox'::regclass ORDER BY attnum".encode()).fetchall()
    world.conn.execute("ALTER TABLE outbox RENAME TO theirs")
    world.conn.execute("DROP PUBLICATION outhaul")
    apply_postgres(world.settings, lambda _: None)
    ours = world.conn.execute(f"{columns} AND attrelid = 'outbox'::regclass ORDER BY attnum".encode()).fetchall()
    assert theirs == ours
    with engine.begin() as conn:
        assert by_sqlalchemy.emit(conn, by_sqlalchemy.Event("t", {}, environment="test", key="k"))
    engine.dispose()

"""Names that Postgres and ClickHouse allow, in every place: each command works on them."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from outhaul import Event, Outbox
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.quoting import clickhouse_identifier, join_name, postgres_identifier
from tests.acceptance.commands import asked, outhaul
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import World

# What a parser, a driver, a template, a shell or a person takes for something else than a part of a name.
PIECES = [
    "%", "%s", "%(a)s", "%%", "'", '"', '""', ".", ",", "=", " ", "\\", "`", "$do$", "$$", "${table}", "{a:String}",
    "{}", "--", ";", "/*", "*/", "#", "?", ":a", "@", "&", "+", "select", "Order", "1", "_", "é", "🚀", "名",
    "\u00a0", "a",
]  # fmt: skip
LONGEST_BYTES = 40
_numbers = itertools.count()

NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)
NAMES = NAMES.filter(lambda name: len(name.encode()) <= LONGEST_BYTES)


@dataclass(frozen=True)
class Names:
    """What an operator may name: each a name as the server has it."""

    schema: str
    table: str
    column: str
    publication: str
    database: str
    stored: str


ODD = st.builds(Names, NAMES, NAMES, NAMES, NAMES, NAMES, NAMES)
QUICK = settings(
    max_examples=1,
    deadline=None,
    phases=[Phase.explicit],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.slow
@QUICK
@given(ODD)
@example(Names("My %s", 'order."select"', "100% é", "it's $do$ %", "1st.d`b", 'to "b" \\ {a:String}'))
def test_every_command_works_with_names_that_need_quotes(make_world: Callable[..., World], names: Names) -> None:
    try_all(make_world, names)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@settings(QUICK, max_examples=8, phases=[Phase.generate])
@given(ODD)
def test_every_command_works_with_any_names(make_world: Callable[..., World], names: Names) -> None:
    try_all(make_world, names)


def try_all(make_world: Callable[..., World], names: Names) -> None:
    number = next(_numbers)
    database = f"{names.database} {os.getpid()} {number}"
    slot = f"odd_{os.getpid()}_{number}"
    probe = make_world(setup=False)
    server = probe.env["OUTHAUL_CLICKHOUSE_URL"].rsplit("/", 1)[0]
    probe.clickhouse.command(f"CREATE DATABASE {clickhouse_identifier(database)}")
    world = make_world(
        setup=False,
        table=join_name(names.schema, names.table),
        publication=names.publication,
        clickhouse_table=names.stored,
        clickhouse_url=f"{server}/{quote(database, safe='')}",
        slot=slot,
    )
    try:
        each_command(world, names)
    finally:
        world.pipeline.kill()
        ClickHouse(f"{server}/default", timeout_s=60).command(f"DROP DATABASE {clickhouse_identifier(database)}")


def each_command(world: World, names: Names) -> None:
    schema = postgres_identifier(names.schema)
    table = f"{schema}.{postgres_identifier(names.table)}"
    world.conn.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
    outhaul(world, "setup")
    outhaul(world, "setup")
    column = postgres_identifier(names.column)
    world.conn.execute(f"ALTER TABLE {table} ADD COLUMN {column} text DEFAULT 'of the column'".encode())
    world.pipeline.start("worker", "reader")
    outbox = Outbox(table=world.env["OUTHAUL_TABLE"], environment="test")
    with psycopg.connect(world.dsn) as conn:
        outbox.emit_many(conn, [Event("odd", {"n": n}, key=f"{n}") for n in range(3)])
    stored = clickhouse_identifier(names.stored)
    until(lambda: world.ch(f"EXISTS TABLE {stored}") and world.ch(f"SELECT count() FROM {stored}") == 3)
    of_column = f"SELECT uniqExact({clickhouse_identifier(names.column)}) FROM {stored}"
    assert world.ch(of_column) == 1
    found = asked(world, "verify", "--deep")
    assert found["rows"] == 3
    assert [found[kind] for kind in ("missing", "extra", "differing", "repeated", "not_compared")] == [0, 0, 0, 0, []]
    assert "0 fail" in outhaul(world, "doctor")
    for command in ("status", "backfill", "dlq list", "slot show", "replay --since 1d --dry-run"):
        outhaul(world, *command.split())
    done = asked(world, "slot", "reset", "--recreate", "--yes")
    assert done["stored"] == 0
    until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="the reader streams again")
    assert asked(world, "prune", "--older-than", "0s", "--yes")["removed"] == 3

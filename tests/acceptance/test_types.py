"""Columns of every type, added, dropped, renamed and changed while writers write; both sides hold the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.outbox.heal import heal, verify
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.settings import load
from tests.acceptance.commands import outhaul
from tests.acceptance.load import trickle, wait_for_more, writers
from tests.conftest import until
from tests.integration.test_decode_values import SPECIAL, SQL_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.outbox.heal import Tally
    from tests.conftest import World

UNMAPPED = {
    "money": "'2.50'",
    "int4range": "'[1,3)'",
    "point": "'(1,2)'",
    "interval[]": "'{1 day}'",
    "tsvector": "'a b'",
    "mood": "'sad'",
    "word": "'w'",
}
"""Types without a binary form that we know, and a value of each."""


def quiet(*_: object) -> None:
    """Nobody watches."""


def compared(world: World) -> Tally:
    with behind_the_slot(world.settings.streams(), within_s=30) as line:
        return verify(world.outbox, line, Scope(deep=True), quiet)


def assert_equal(world: World, *, but: int = 0) -> None:
    """Ask both sides for a number of each row's contents."""
    tally = compared(world)
    assert (tally.missing, tally.extra, tally.differing, tally.repeated) == (0, 0, but, 0), tally.ids
    assert not tally.not_compared


def column(oid: Oid) -> str:
    return f"a_{oid.name.lower()}"


def insert(world: World, name: str, values: list[str]) -> None:
    rows = ", ".join(f"('x', 'test', '{{}}', {value})" for value in values)
    world.conn.execute(f"INSERT INTO outbox (event_type, environment, event_context, {name}) VALUES {rows}")


def literal(value: object) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return "'" + text.replace("'", "''") + "'"


def spelled(oid: Oid) -> list[str]:
    """Return values of a type as SQL, without those of a megabyte."""
    if oid is Oid.BYTEA:
        return [r"'\x00ff5c'", "''"]
    return [literal(value) for value in SPECIAL[oid] if len(str(value)) < 2000]


def test_values_of_every_type_are_equal_whether_they_came_by_stream_or_by_copy(running: World) -> None:
    added = ", ".join(f"ADD {column(oid)} {kind}" for oid, kind in SQL_TYPES.items())
    running.conn.execute(f"ALTER TABLE outbox {added}, ADD price numeric(12,2), ADD wide numeric(30,10)")
    with running.conn.transaction():
        for oid in Oid:
            insert(running, column(oid), spelled(oid))
        insert(running, "price, wide", ["-1.20, 12345678901234567890.1234567890", "0, 0", "9999999999.99, NULL"])
        insert(running, "price", ["'NaN'"])
    dead = running.sql("SELECT count(*) FROM outbox WHERE price = 'NaN'") + running.sql(_UNHELD)
    running.assert_once_each(dead=dead)
    assert_equal(running)
    assert running.ch("SELECT toTypeName(price) FROM event_log LIMIT 1") == "Nullable(Decimal(12, 2))"
    assert running.clickhouse.rows("SELECT toString(price), wide FROM event_log WHERE price < 0") == [
        ("-1.2", "12345678901234567890.1234567890")
    ]
    kept = "* EXCEPT (cdc_batch, cdc_lsn, cdc_ordinal, cdc_ingested_at, cdc_committed_at)"
    everything = f"SELECT {kept} FROM event_log ORDER BY id"
    before = running.clickhouse.rows(everything)
    running.clickhouse.command("TRUNCATE TABLE event_log")
    with behind_the_slot(running.settings.streams(), within_s=30) as line:
        assert heal(running.outbox, running.stream, line, Scope(), quiet, give_up_s=30).stored == len(before)
    assert str(running.clickhouse.rows(everything)) == str(before)
    assert_equal(running)


_UNHELD = " + ".join(
    f"(SELECT count(*) FROM outbox WHERE {column(oid)} < '1900-01-01' OR {column(oid)} >= '2300-01-01')"
    for oid in (Oid.DATE, Oid.TIMESTAMP, Oid.TIMESTAMPTZ)
)
_UNHELD = f"SELECT {_UNHELD}"


def with_defaults() -> dict[str, tuple[str, str]]:
    """Return a column for each type that is read in binary, and a value of it as SQL."""
    return {column(oid): (kind, spelled(oid)[-1]) for oid, kind in SQL_TYPES.items() if oid not in _TIMES}


_TIMES = {Oid.DATE, Oid.TIMESTAMP, Oid.TIMESTAMPTZ}


@pytest.mark.thorough
def test_columns_of_every_type_added_under_load_are_filled_from_then_on(running: World) -> None:
    """Add each column twice: without a default, and with one."""
    columns = with_defaults()
    with trickle(running):
        wait_for_more(running)
        for name, (kind, value) in columns.items():
            running.conn.execute(f"ALTER TABLE outbox ADD {name} {kind}")
            running.conn.execute(f"ALTER TABLE outbox ADD d_{name} {kind} NOT NULL DEFAULT {value}")
            insert(running, name, [value])
        wait_for_more(running)
    running.assert_once_each()
    for name in columns:
        filled = running.ch(f"SELECT (countIf({name} IS NOT NULL), max(d_{name}) = any({name})) FROM event_log")
        assert tuple(filled) == (1, 1), name
    # Postgres shows the default in rows that were there before. ClickHouse does, too, while no column was dropped.
    was = " OR ".join(f"d_{name} IS NULL" for name in columns)
    assert_equal(running, but=running.ch(f"SELECT count() FROM event_log WHERE {was}"))


@pytest.mark.thorough
def test_types_that_are_not_read_in_binary_arrive_as_text_under_load(running: World) -> None:
    running.conn.execute("CREATE TYPE mood AS ENUM ('glad', 'sad')")
    running.conn.execute("CREATE DOMAIN word AS text")
    with writers(running):
        for at, (kind, value) in enumerate(UNMAPPED.items()):
            running.conn.execute(f"ALTER TABLE outbox ADD t{at} {kind}")
            insert(running, f"t{at}", [f"{value}::{kind}"])
        wait_for_more(running)
    running.assert_once_each()
    for at, kind in enumerate(UNMAPPED):
        printed = running.sql(f"SELECT t{at}::text FROM outbox WHERE t{at} IS NOT NULL")
        if kind == "interval[]":
            printed = "{P1D}"
        assert running.clickhouse.rows(f"SELECT t{at} FROM event_log WHERE t{at} IS NOT NULL") == [(printed,)], kind
    assert_equal(running)


# A type of an app's own, that has no binary form until it is given one, and then one that fails.
SHOUT = (
    "CREATE TYPE shout",
    "CREATE FUNCTION shout_in(cstring) RETURNS shout LANGUAGE internal STRICT IMMUTABLE AS 'textin'",
    "CREATE FUNCTION shout_out(shout) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'textout'",
    "CREATE TYPE shout (INPUT = shout_in, OUTPUT = shout_out, LIKE = text)",
    "CREATE FUNCTION shout_send(shout) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN RAISE 'not in binary'; END $$",
)
NO_BINARY_FORM = {
    "aclitem": "'=r/outhaul'",
    "gate": "'=r/outhaul'",
    "shout": "'hey'",
    "aclitem[]": "ARRAY['=r/outhaul'::aclitem, NULL]",
    "visit": "ROW('me', '=r/outhaul')",
    "visit[]": "ARRAY[ROW(NULL, NULL)::visit, NULL]",
}
"""Types whose values cannot be sent in binary form: the server sends text, or ends the stream."""

PRINTED_OTHERWISE = {"code": "'a'", "host": "'10.0.0.1'", "flag": "true", "pair": "ROW(NULL, NULL)", "raw": r"'\x00ff'"}
"""Types that a cast to text prints in another way than the stream, or takes for NULL."""


@pytest.fixture
def odd(running: World) -> World:
    """A pipeline in a database with types of its own."""
    for statement in (
        *SHOUT,
        "CREATE DOMAIN gate AS aclitem",
        "CREATE TYPE visit AS (who text, acl aclitem)",
        "CREATE TYPE pair AS (a int, b int)",
        "CREATE DOMAIN code AS char(5)",
        "CREATE DOMAIN host AS inet",
        "CREATE DOMAIN flag AS boolean",
        "CREATE DOMAIN raw AS bytea",
    ):
        running.conn.execute(statement)
    return running


def add_and_insert(world: World, types: dict[str, str], prefix: str) -> None:
    for at, (kind, value) in enumerate(types.items()):
        world.conn.execute(f"ALTER TABLE outbox ADD {prefix}{at} {kind}")
        insert(world, f"{prefix}{at}", [f"{value}::{kind}", "NULL"])


def assert_as_printed(world: World, types: dict[str, str], prefix: str) -> None:
    """Compare with what the server's output functions print."""
    for at, kind in enumerate(types):
        name = f"{prefix}{at}"
        printed = world.sql(f"SELECT concat({name}) FROM outbox WHERE {name} IS DISTINCT FROM NULL")
        stored = world.clickhouse.rows(f"SELECT {name} FROM event_log WHERE {name} IS NOT NULL")
        assert stored == [(printed,)], kind


def test_types_without_a_send_function_come_as_text_in_the_binary_stream(odd: World) -> None:
    types = {kind: NO_BINARY_FORM[kind] for kind in ("aclitem", "gate", "shout")}
    add_and_insert(odd, types, "n")
    odd.assert_once_each()
    assert_as_printed(odd, types, "n")
    assert "text_tuples" not in odd.pipeline.log("reader")
    assert_equal(odd)


def test_a_value_that_the_server_cannot_send_in_binary_makes_the_reader_ask_for_text(odd: World) -> None:
    add_and_insert(odd, NO_BINARY_FORM, "n")
    odd.assert_once_each()
    assert "no binary output function available for type aclitem" in odd.pipeline.log("reader")
    assert_as_printed(odd, NO_BINARY_FORM, "n")
    assert_equal(odd)


def test_a_send_function_that_raises_an_error_costs_no_event(odd: World) -> None:
    odd.conn.execute("ALTER TABLE outbox ADD loud shout")
    insert(odd, "loud", ["'one'"])
    odd.assert_once_each()
    odd.conn.execute("ALTER TYPE shout SET (SEND = shout_send)")
    insert(odd, "loud", ["'two'"])
    odd.assert_once_each()
    assert "not in binary" in odd.pipeline.log("reader")
    assert odd.clickhouse.rows("SELECT loud FROM event_log ORDER BY id") == [("one",), ("two",)]
    assert_equal(odd)


def test_a_copy_prints_what_the_stream_prints_whatever_a_cast_to_text_does(odd: World) -> None:
    types = NO_BINARY_FORM | PRINTED_OTHERWISE
    add_and_insert(odd, types, "p")
    odd.conn.execute('ALTER TABLE outbox ADD high "char"')
    insert(odd, "high", ["'é'"])
    odd.assert_once_each()
    assert_as_printed(odd, types, "p")
    assert_equal(odd)
    everything = "SELECT id, " + ", ".join(f"p{at}" for at in range(len(types))) + " FROM event_log ORDER BY id"
    before = odd.clickhouse.rows(everything)
    odd.clickhouse.command("TRUNCATE TABLE event_log")
    with behind_the_slot(odd.settings.streams(), within_s=60) as line:
        assert heal(odd.outbox, odd.stream, line, Scope(), quiet, give_up_s=60).stored == len(before)
    assert odd.clickhouse.rows(everything) == before
    assert_equal(odd)


def test_a_dropped_column_stays_and_a_renamed_one_is_another_under_load(running: World) -> None:
    running.conn.execute("ALTER TABLE outbox ADD gone int DEFAULT 7, ADD old_name int DEFAULT 8")
    with writers(running):
        wait_for_more(running)
        running.conn.execute("ALTER TABLE outbox DROP COLUMN gone")
        running.conn.execute("ALTER TABLE outbox RENAME COLUMN old_name TO new_name")
        at = running.sql("SELECT last_value FROM outbox_id_seq")
        wait_for_more(running)
        wait_for_more(running)
    running.assert_once_each()
    # Transactions that were open at the time had their ids before it.
    late = f"FROM event_log WHERE id > {at} + 2000"
    until(lambda: running.ch(f"SELECT count() {late}") >= 0)
    assert running.ch("SELECT countIf(gone = 7) > 0 AND countIf(old_name = 8) > 0 FROM event_log") == 1
    assert running.ch("SELECT countIf(new_name = 8) > 0 FROM event_log") == 1
    assert running.ch("SELECT countIf(new_name = 8 AND (gone IS NOT NULL OR old_name IS NOT NULL)) FROM event_log") == 0


@pytest.mark.thorough
def test_a_number_that_grows_stops_the_reader_and_the_statement_it_names_lets_it_go_on(running: World) -> None:
    running.conn.execute("ALTER TABLE outbox ADD n int, ADD price numeric(10,2)")
    insert(running, "n, price", ["1, 1.25"])
    running.assert_once_each()
    running.conn.execute("ALTER TABLE outbox ALTER n TYPE bigint, ALTER price TYPE numeric(12,4)")
    insert(running, "n, price", ["1099511627776, 1.2345"])
    for statement in (
        "ALTER TABLE `event_log` MODIFY COLUMN `n` Nullable(Int64)",
        "ALTER TABLE `event_log` MODIFY COLUMN `price` Nullable(Decimal(12, 4))",
    ):
        assert running.pipeline.wait("reader", 30) == Exit.CLICKHOUSE_TABLE
        assert statement in (running.logs / "reader.log").read_text()
        running.clickhouse.command("SYSTEM START MERGES event_log")
        running.clickhouse.command(statement)
        running.pipeline.start("reader")
    running.assert_once_each()
    assert running.clickhouse.rows("SELECT n, toString(price) FROM event_log ORDER BY id") == [
        (1, "1.25"),
        (1099511627776, "1.2345"),
    ]


@pytest.mark.thorough
def test_a_number_that_becomes_text_stops_the_reader_before_a_text_is_stored_as_null(running: World) -> None:
    running.conn.execute("ALTER TABLE outbox ADD COLUMN word int")
    running.conn.execute("INSERT INTO outbox (event_type, environment, event_context, word) VALUES ('t', 'e', '{}', 7)")
    running.assert_once_each()
    running.conn.execute("ALTER TABLE outbox ALTER COLUMN word TYPE text")
    running.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context, word) VALUES ('t', 'e', '{}', 'x')"
    )
    assert running.pipeline.wait("reader", 30) == Exit.CLICKHOUSE_TABLE
    running.clickhouse.command("SYSTEM START MERGES event_log")
    statement = "ALTER TABLE `event_log` MODIFY COLUMN `word` Nullable(String)"
    assert statement in running.pipeline.log("reader")
    running.clickhouse.command(statement)
    running.pipeline.start("reader")
    running.assert_once_each()
    assert running.clickhouse.rows("SELECT word FROM event_log ORDER BY id") == [("7",), ("x",)]


@pytest.mark.thorough
def test_a_table_whose_name_needs_quotes_is_captured_compared_and_pruned(make_world: Callable[..., World]) -> None:
    world = make_world(setup=False, table="Billing.Out-Box")
    world.conn.execute('CREATE SCHEMA "Billing"')
    outhaul(world, "setup")
    world.pipeline.start("worker", "reader")
    world.conn.execute('SET search_path = "Billing"')
    world.app = world.conn
    world.conn.execute('CREATE VIEW outbox AS SELECT * FROM "Out-Box"')
    world.insert(5)
    world.assert_once_each()
    world.clickhouse.command("TRUNCATE TABLE event_log")
    outhaul(world, "backfill")
    world.assert_once_each()
    assert_equal(world)
    outhaul(world, "doctor")
    outhaul(world, "prune", "--older-than", "0s", "--yes")
    assert world.sql("SELECT count(*) FROM outbox") == 0


def test_a_table_name_that_cannot_be_quoted_is_refused() -> None:
    for name in ("outbox", "a.b.c", "public.", "public.out\nbox"):
        with pytest.raises(FatalError, match="table"):
            load(table=name)

"""Columns of every type, added, dropped, renamed and changed while writers write; both sides hold the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cdc_reader.column_types import Oid
from cdc_reader.outbox.heal import heal, verify
from cdc_reader.outbox.line import behind_the_slot
from cdc_reader.outbox.sides import Scope
from sink.errors import Exit
from tests.acceptance.load import wait_for_more, writers
from tests.conftest import until
from tests.integration.test_decode_values import SPECIAL, SQL_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdc_reader.outbox.heal import Tally
    from tests.conftest import World

UNMAPPED = {
    "money": "'2.50'",
    "int4range": "'[1,3)'",
    "point": "'(1,2)'",
    "xml": "'<a/>'",
    "interval[]": "'{1 day}'",
    "tsvector": "'a b'",
    "mood": "'sad'",
    "word": "'w'",
}
"""Types without a binary form that we know, and a value of each."""


def quiet(*_: object) -> None:
    """Nobody watches."""


def compared(world: World) -> Tally:
    with behind_the_slot(world.settings, within_s=30) as line:
        return verify(world.settings, line, Scope(deep=True), quiet)


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
    everything = "SELECT * EXCEPT (cdc_lsn, cdc_ordinal, cdc_ingested_at, cdc_committed_at) FROM event_log ORDER BY id"
    before = running.clickhouse.rows(everything)
    running.clickhouse.command("TRUNCATE TABLE event_log")
    with behind_the_slot(running.settings, within_s=30) as line:
        assert heal(running.settings, line, Scope(), quiet, patience_s=30).stored == len(before)
    assert str(running.clickhouse.rows(everything)) == str(before)
    assert_equal(running)


_UNHELD = " + ".join(
    f"(SELECT count(*) FROM outbox WHERE {column(oid)} < '1900-01-01' OR {column(oid)} >= '2300-01-01')"
    for oid in (Oid.DATE, Oid.TIMESTAMP, Oid.TIMESTAMPTZ)
)
_UNHELD = f"SELECT {_UNHELD}"

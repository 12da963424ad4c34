"""Columns of the outbox and of `event_log` -> findings: whether each value is stored unchanged.

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.capture.column_types import IGNORED, Oid, column_type
from outhaul.cdc_reader.capture.type_fit import Fit, fit_of
from outhaul.cdc_reader.operate.doctor.finding import Finding, State, fail, fine, warn
from outhaul.sink.quoting import clickhouse_identifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from outhaul.sink.schema import Table

_INTEGERS = {Oid.INT2, Oid.INT4, Oid.INT8}
_EXPECTED = ("event_type", "event_date_time", "environment", "event_context")
_STATES = {Fit.WHOLE: State.PASS, Fit.PARTLY: State.WARN, Fit.CHANGED: State.FAIL}
# A NULL in this column is stored as the commit time.
_NULL_IS_FILLED = "event_date_time"
_COMPUTED = {"MATERIALIZED", "ALIAS", "EPHEMERAL"}
_CDC = {
    "cdc_source": "String",
    "cdc_lsn": "UInt64",
    "cdc_ordinal": "UInt64",
    "cdc_committed_at": "DateTime64(6, 'UTC')",
}


@dataclass(frozen=True, slots=True)
class OutboxColumn:
    """A column in Postgres; `published` tells whether the publication includes it."""

    name: str
    type_oid: int
    type: str
    nullable: bool
    published: bool
    modifier: int = -1


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A column in ClickHouse; `default_kind` is empty if it has no default."""

    name: str
    type: str
    default_kind: str


def judge(outbox: Sequence[OutboxColumn], stored: Sequence[StoredColumn], table: Table) -> Iterator[Finding]:
    """Compare both sides; `table` is the one in ClickHouse."""
    captured = [column for column in outbox if column.name not in IGNORED and column.published]
    by_name = {column.name: column for column in stored}
    yield event_id({column.name: column for column in captured})
    troubles = [found for column in captured if (found := _judge_one(column, by_name.get(column.name), table))]
    troubles += _judge_own(by_name, table)
    yield from troubles
    if not troubles:
        yield fine("types", f"{len(captured)} columns fit")
    yield from _named(outbox, captured, by_name)


def event_id(captured: Mapping[str, OutboxColumn]) -> Finding:
    """Judge `id`: in the table's sorting key it distinguishes events of one moment."""
    column = captured.get("id")
    if column is None:
        return fail(
            "id",
            "the outbox has no column id, so ClickHouse cannot distinguish events of one moment",
            "Give the outbox an id of type bigint",
        )
    if column.type_oid not in _INTEGERS:
        return fail("id", f"id is {column.type}, not an integer", "Give the outbox an id of type bigint")
    return fine("id", column.type)


def _judge_one(column: OutboxColumn, target: StoredColumn | None, table: Table) -> Finding | None:
    """Return what is wrong with a column, if anything; the worker adds a column that ClickHouse lacks."""
    if target is None:
        return None
    check = f"column {column.name}"
    kind = column_type(column.type_oid, column.modifier).clickhouse
    wanted = f"Nullable({kind})" if column.nullable and column.name != _NULL_IS_FILLED else kind
    alter = _alter(table, column.name, wanted)
    if target.default_kind in _COMPUTED:
        return fail(check, f"is {target.default_kind} in ClickHouse, so no value can be inserted into it", alter)
    fit, trouble = fit_of(kind, target.type)
    if fit is not Fit.WHOLE:
        return Finding(check, _STATES[fit], f"{column.type} goes into {target.type}: {trouble}", alter)
    if column.nullable and column.name != _NULL_IS_FILLED and not _holds_null(target.type):
        return warn(check, f"can be NULL, but {target.type} cannot: events with NULL become dead letters", alter)
    return None


def _alter(table: Table, column: str, kind: str) -> str:
    """Return the statement that changes the type of a column; ClickHouse refuses that for columns of a key."""
    name, old = map(clickhouse_identifier, (table.name, f"{table.name}_old"))
    if re.search(rf"\b{re.escape(column)}\b", f"{table.partition_key} {table.sorting_key}"):
        return f"RENAME TABLE {name} TO {old}; then: outhaul setup, and copy the rows"
    return f"ALTER TABLE {name} MODIFY COLUMN {clickhouse_identifier(column)} {kind}"


def _holds_null(kind: str) -> bool:
    return "Nullable(" in kind or kind.startswith(("Dynamic", "Variant"))


def _judge_own(by_name: Mapping[str, StoredColumn], table: Table) -> list[Finding]:
    """Judge the columns `cdc_*`, which have a row's source and position."""
    findings = []
    for name, kind in _CDC.items():
        column = by_name.get(name)
        if column is None:
            todo = f"ALTER TABLE {clickhouse_identifier(table.name)} ADD COLUMN {clickhouse_identifier(name)} {kind}"
            findings.append(fail(f"column {name}", "is missing, so no row can be stored", todo))
        elif (verdict := fit_of(kind, column.type))[0] is not Fit.WHOLE:
            findings.append(fail(f"column {name}", verdict[1], _alter(table, name, kind)))
    return findings


def _named(
    outbox: Sequence[OutboxColumn], captured: Sequence[OutboxColumn], by_name: Mapping[str, StoredColumn]
) -> Iterator[Finding]:
    known = set(Oid)
    as_text = [f"{column.name} ({column.type})" for column in captured if column.type_oid not in known]
    if as_text:
        yield fine("stored as text", f"{', '.join(as_text)}; Postgres sends all columns as text then, which is slower")
    added = [
        f"{column.name} ({column_type(column.type_oid, column.modifier).clickhouse})"
        for column in captured
        if column.name not in by_name
    ]
    if added:
        yield fine("new columns", f"{', '.join(added)}: the next batch adds them to ClickHouse")
    hidden = [column.name for column in outbox if not column.published and column.name not in IGNORED]
    if hidden:
        yield warn("not published", f"{', '.join(hidden)}: the publication's column list does not include them")
    names = {column.name for column in captured}
    missing = [name for name in _EXPECTED if name not in names]
    if missing:
        yield warn("not in the outbox", f"{', '.join(missing)}: ClickHouse stores its default instead")

"""Outbox and stream -> the shape of the table: its published columns, how each is read, and which rows are published.

Edge: Postgres' catalogue.

Source: https://www.postgresql.org/docs/current/view-pg-publication-tables.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, cast

from outhaul.cdc_reader.capture.column_types import IGNORED, Oid
from outhaul.cdc_reader.capture.pgoutput_messages import Column
from outhaul.cdc_reader.postgres.errors import table_missing
from outhaul.cdc_reader.postgres.outbox_checks import check_sees_all
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.quoting import postgres_table

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Outbox, Stream

_KEY = "id"
_INTEGERS = {Oid.INT2, Oid.INT4, Oid.INT8}
_BINARY_TYPES = frozenset(Oid)
_FIRST_WITH_LISTS = 150000

_COLUMNS: LiteralString = """
    SELECT attname AS name, atttypid::int8 AS oid, atttypmod AS modifier, attgenerated <> '' AS is_generated,
           has_column_privilege(attrelid, attnum, 'SELECT') AS is_readable,
           current_setting('server_encoding') AS encoding
    FROM pg_attribute WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum"""

# Compared by name: a cast to regclass would fail for published tables in schemas that the role may not use.
_PUBLISHED: LiteralString = """
    SELECT attnames::text[] AS names, rowfilter FROM pg_publication_tables
    WHERE pubname = %(publication)s AND (schemaname, tablename) = (
        SELECT nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = to_regclass(%(table)s))"""


@dataclass(frozen=True, slots=True)
class Shape:
    """The captured table.

    `columns` are the captured columns, `readable` the names of those that the role may read. `condition` is the SQL
    condition for published rows in Postgres. `stored_condition` is the SQL condition for the rows of one shard in
    ClickHouse; empty for all rows.
    """

    table: str
    columns: tuple[Column, ...]
    readable: frozenset[str]
    condition: str
    encoding: str
    stored_condition: str = ""

    @property
    def quoted_table(self) -> str:
        """Return the table's name for a statement without values."""
        return postgres_table(self.table)


def is_binary(column: Column) -> bool:
    """Tell whether the binary form of the column's type is decoded; other types are read as text."""
    return column.type_oid in _BINARY_TYPES


def printed(value: str) -> str:
    """Return the SQL for the text that the type's output function prints, as the stream has it; NULL for NULL.

    A cast to text may print another one: of a domain over inet it adds a mask, of one over char(n) it drops the blanks.
    IS NULL is also true for a composite value whose fields are all NULL.
    """
    return f"CASE WHEN {value} IS DISTINCT FROM NULL THEN concat({value}) END"


def describe(conn: Connection, outbox: Outbox, stream: Stream) -> Shape:
    """Read from the catalogue which columns and rows of the outbox are in the stream.

    Raises:
        FatalError: the table does not exist, or has no integer column `id`, by which rows are compared, or row-level
            security hides some of its rows.
        PipelineError: Postgres refuses or does not answer.
    """
    names = {"table": outbox.sql_table, "publication": stream.publication}
    found = conn.fetch(_COLUMNS, names)
    published = conn.fetch_one(_PUBLISHED, names) if conn.version >= _FIRST_WITH_LISTS else None
    if not found:
        raise table_missing(outbox.table)
    check_sees_all(conn, outbox.sql_table)
    # Since version 18 a publication may have stored generated columns: then its list has them.
    stored = {row["name"] for row in found if not row["is_generated"]}
    listed = set(published["names"]) if published and published["names"] else stored
    kept = [row for row in found if row["name"] in listed and row["name"] not in IGNORED]
    if not any(row["name"] == _KEY and row["oid"] in _INTEGERS for row in kept):
        raise FatalError(
            f"{outbox.table} has no published integer column `{_KEY}`, which identifies its rows",
            todo="Without it, rows of this table can be streamed, but not compared, healed or pruned",
            exit_code=Exit.TABLE_MISSING,
        )
    columns = tuple(Column(row["name"], cast("int", row["oid"]), cast("int", row["modifier"])) for row in kept)
    condition = (published or {}).get("rowfilter") or "true"
    readable = frozenset(row["name"] for row in kept if row["is_readable"])
    return Shape(outbox.table, columns, readable, f"({condition})", found[0]["encoding"], stream.row_condition)

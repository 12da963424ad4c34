"""Columns of the outbox -> SQL for both sides that computes the same 64-bit number from the same row.

Pure. Each side computes the numbers of its own rows, and only the numbers are transferred. The text of a row is each
value after its length, so different rows have different texts. The number is the first half of the text's MD5, which
both databases can compute.

Source: https://clickhouse.com/docs/sql-reference/functions/hash-functions#md5
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.outbox.table_shape import is_binary, printed
from outhaul.sink.quoting import clickhouse_identifier, postgres_identifier

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.pgoutput_messages import Column
    from outhaul.cdc_reader.outbox.table_shape import Shape

_Sql: TypeAlias = Callable[[str], str]

# ClickHouse parses the values of a JSON column: their text is no longer the text that Postgres prints.
_INCOMPARABLE = "JSON"


def compared(shape: Shape, types: Mapping[str, str], *, without: str = "") -> list[Column]:
    """Return the columns whose values have the same text form on both sides; `types` are ClickHouse's, by name."""
    return [
        column
        for column in shape.columns
        if column.name in types and _INCOMPARABLE not in types[column.name] and column.name != without
    ]


def postgres_number(value: str) -> str:
    """Return the SQL for the number of a text or of bytes in Postgres."""
    return f"('x' || substr(md5({value}), 1, 16))::bit(64)::bigint"


def clickhouse_number(value: str) -> str:
    """Return the SQL for the number of a String in ClickHouse."""
    return f"reinterpretAsInt64(reverse(substring(MD5({value}), 1, 8)))"


def postgres_row(columns: list[Column], encoding: str) -> str:
    """Return the SQL for the number of a row's contents in Postgres; `encoding` is the server's."""
    # Text of a SQL_ASCII database has no encoding: its bytes are not converted.
    target = "SQL_ASCII" if encoding == "SQL_ASCII" else "UTF8"

    def as_text(column: Column) -> str:
        name = postgres_identifier(column.name)
        text = _POSTGRES.get(column.type_oid, _cast if is_binary(column) else printed)(name)
        value = text if column.type_oid in _BYTES else f"convert_to({text}, '{target}')"
        return f"coalesce(convert_to(octet_length({value})::text || ':', 'UTF8') || {value}, '-'::bytea)"

    return postgres_number(" || ".join(as_text(column) for column in columns))


def clickhouse_row(columns: list[Column]) -> str:
    """Return the SQL for the number of a row's contents in ClickHouse."""

    def as_text(column: Column) -> str:
        name = clickhouse_identifier(column.name)
        value = _CLICKHOUSE.get(column.type_oid, _to_string)(f"assumeNotNull({name})")
        return f"if(isNull({name}), '-', concat(toString(length({value})), ':', {value}))"

    return clickhouse_number("concat('', " + ", ".join(as_text(column) for column in columns) + ")")


def _cast(value: str) -> str:
    return f"{value}::text"


def _to_string(value: str) -> str:
    return f"toString({value})"


def _finite(as_text: _Sql) -> _Sql:
    # Arithmetic with infinite dates raises an error. Such rows are dead letters, except those from before the column
    # was added with an infinite default: they have NULL in ClickHouse.
    return lambda value: f"CASE WHEN isfinite({value}) THEN ({as_text(value)})::text END"


# Not cast to bigint: Postgres' last timestamps exceed it.
_MICROSECONDS = _finite(lambda value: f"trunc(extract(epoch from {value}) * 1000000)")
_BYTES = {Oid.BYTEA, Oid.BPCHAR}
_POSTGRES: dict[int, _Sql] = {
    Oid.BOOL: lambda value: f"CASE WHEN {value} THEN '1' WHEN NOT {value} THEN '0' END",
    Oid.BYTEA: lambda value: value,
    # Versions before 16 print a byte above 127 as it is.
    Oid.CHAR: lambda value: (
        f"CASE WHEN charsend({value}) > '\\x7f' THEN encode(charsend({value}), 'escape') ELSE {value}::text END"
    ),
    # A cast to text would remove the blanks at its end.
    Oid.BPCHAR: lambda value: f"bpcharsend({value})",
    Oid.FLOAT4: lambda value: f"encode(float4send({value}), 'hex')",
    Oid.FLOAT8: lambda value: f"encode(float8send({value}), 'hex')",
    Oid.DATE: _finite(lambda value: f"{value} - '1970-01-01'::date"),
    Oid.TIMESTAMP: _MICROSECONDS,
    Oid.TIMESTAMPTZ: _MICROSECONDS,
    # A cast to text adds a mask that the output function leaves out.
    Oid.INET: lambda value: f"inet_out({value})::text",
    Oid.NUMERIC: lambda value: f"trim_scale({value})::text",
}


def _hex_of(kind: str) -> _Sql:
    # Big-endian, as Postgres sends it: `hex` returns all bytes of a float in the order of memory, which is reversed.
    return lambda value: f"lower(hex(reverse(unhex(hex(to{kind}({value}))))))"


def _without_zeros(value: str) -> str:
    # The text of a Decimal has no zeros at its end; a String column with the same number has them.
    text = f"toString({value})"
    return f"if(position({text}, '.') = 0, {text}, trim(TRAILING '.' FROM trim(TRAILING '0' FROM {text})))"


_CLICKHOUSE: dict[int, _Sql] = {
    Oid.NUMERIC: _without_zeros,
    Oid.BOOL: lambda value: f"toString(toUInt8({value}))",
    Oid.FLOAT4: _hex_of("Float32"),
    Oid.FLOAT8: _hex_of("Float64"),
    Oid.DATE: lambda value: f"toString(toInt32({value}))",
    Oid.TIMESTAMP: lambda value: f"toString(toUnixTimestamp64Micro(toDateTime64({value}, 6, 'UTC')))",
    Oid.TIMESTAMPTZ: lambda value: f"toString(toUnixTimestamp64Micro(toDateTime64({value}, 6, 'UTC')))",
}

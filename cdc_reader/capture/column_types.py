"""Postgres type oid -> Arrow type and ClickHouse type of a column.

Pure. Text keeps its bytes (`binary` in Arrow), since a SQL_ASCII database may hold text that is not UTF-8. A type that
is not listed in `Oid` is not decoded from its binary form; in text form it becomes a String.

Source: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from outhaul.sink.batch import BYTEA

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.pgoutput_messages import Column

IGNORED = frozenset({"processed"})
"""Columns that are never captured: the mark that pollers of an outbox set on a row."""

_NEVER_NULL = frozenset({"id", "event_type", "environment", "event_context"})


class Oid(IntEnum):
    """Types whose binary form is decoded; their oids never change."""

    BOOL = 16
    BYTEA = 17
    CHAR = 18
    NAME = 19
    INT8 = 20
    INT2 = 21
    INT4 = 23
    TEXT = 25
    OID = 26
    JSON = 114
    FLOAT4 = 700
    FLOAT8 = 701
    BPCHAR = 1042
    VARCHAR = 1043
    DATE = 1082
    TIMESTAMP = 1114
    TIMESTAMPTZ = 1184
    UUID = 2950
    JSONB = 3802
    CIDR = 650
    MACADDR8 = 774
    MACADDR = 829
    INET = 869
    TIME = 1083
    INTERVAL = 1186
    TIMETZ = 1266
    BIT = 1560
    VARBIT = 1562
    NUMERIC = 1700
    BOOL_ARRAY = 1000
    INT2_ARRAY = 1005
    INT4_ARRAY = 1007
    TEXT_ARRAY = 1009
    VARCHAR_ARRAY = 1015
    INT8_ARRAY = 1016
    FLOAT8_ARRAY = 1022
    TIMESTAMP_ARRAY = 1115
    DATE_ARRAY = 1182
    TIMESTAMPTZ_ARRAY = 1185
    NUMERIC_ARRAY = 1231
    UUID_ARRAY = 2951
    JSONB_ARRAY = 3807


ELEMENTS = {oid: Oid[oid.name.removesuffix("_ARRAY")] for oid in Oid if oid.name.endswith("_ARRAY")}
"""Type of an array -> type of its elements."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """Type of a column in a batch (Arrow) and in ClickHouse."""

    arrow: pa.DataType
    clickhouse: str


_STRING = ColumnType(pa.binary(), "String")
_TIMESTAMP = ColumnType(pa.timestamp("us", "UTC"), "DateTime64(6, 'UTC')")
_TYPES = {
    Oid.BOOL: ColumnType(pa.bool_(), "Bool"),
    Oid.INT2: ColumnType(pa.int16(), "Int16"),
    Oid.INT4: ColumnType(pa.int32(), "Int32"),
    Oid.INT8: ColumnType(pa.int64(), "Int64"),
    Oid.OID: ColumnType(pa.uint32(), "UInt32"),
    Oid.FLOAT4: ColumnType(pa.float32(), "Float32"),
    Oid.FLOAT8: ColumnType(pa.float64(), "Float64"),
    Oid.UUID: ColumnType(pa.binary(), "UUID"),
    Oid.DATE: ColumnType(pa.date32(), "Date32"),
    Oid.TIMESTAMP: _TIMESTAMP,
    Oid.TIMESTAMPTZ: _TIMESTAMP,
}


_NO_MODIFIER = -1
_MODIFIER_HEADER = 4
_MAX_PRECISION = 18


def column_type(type_oid: int, modifier: int = _NO_MODIFIER) -> ColumnType:
    """Return the types that a Postgres type becomes; String if it is not listed."""
    if type_oid == Oid.NUMERIC:
        return _numeric(modifier)
    return _TYPES.get(type_oid, _STRING)  # type: ignore[call-overload,no-any-return]


def _numeric(modifier: int) -> ColumnType:
    """Return a Decimal if it holds all digits, else String; in a batch the digits are text, which is exact."""
    if modifier < _MODIFIER_HEADER:
        return _STRING
    precision, scale = (modifier - _MODIFIER_HEADER) >> 16, (modifier - _MODIFIER_HEADER) & 0x7FF
    # Postgres 15 and later allow a scale below 0 or above the precision, and Decimal does not. Masked with 0x7FF, a
    # negative scale is larger than any precision, so the comparison below refuses both.
    if not scale <= precision <= _MAX_PRECISION:
        return _STRING
    return ColumnType(pa.binary(), f"Decimal({precision}, {scale})")


@lru_cache(maxsize=64)
def schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Return the Arrow schema; the metadata `clickhouse` of a field is the type with which the column is added."""
    return pa.schema([_field(column) for column in columns])


def _field(column: Column) -> pa.Field:
    kind = column_type(column.type_oid, column.type_modifier)
    name = kind.clickhouse if column.name in _NEVER_NULL else f"Nullable({kind.clickhouse})"
    printed = {BYTEA: b""} if column.type_oid == Oid.BYTEA else {}
    return pa.field(column.name, kind.arrow, metadata={b"clickhouse": name.encode()} | printed)

"""Postgres type oid -> Arrow type and ClickHouse type of a column.

Pure. Text keeps its bytes as they are (`binary` in Arrow), since a SQL_ASCII database may hold other things than UTF-8.
A type that is not listed has no binary form we know; as text it becomes a String.

Source: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from sink.quarantine import BYTEA

if TYPE_CHECKING:
    from cdc_reader.message import Column

IGNORED = frozenset({"processed"})
"""Left out wherever it exists: what outboxes that are polled mark their rows with."""

_NEVER_NULL = frozenset({"id", "event_type", "environment", "event_context"})


class Oid(IntEnum):
    """Types whose binary form we decode; their oids never change."""

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


@dataclass(frozen=True, slots=True)
class ColumnType:
    """What a column is on the way and at its end."""

    arrow: pa.DataType
    clickhouse: str


_STRING = ColumnType(pa.binary(), "String")
_MOMENT = ColumnType(pa.timestamp("us", "UTC"), "DateTime64(6, 'UTC')")
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
    Oid.TIMESTAMP: _MOMENT,
    Oid.TIMESTAMPTZ: _MOMENT,
}


def column_type(type_oid: int) -> ColumnType:
    """Return what a type becomes; String for those not listed."""
    return _TYPES.get(type_oid, _STRING)  # type: ignore[call-overload,no-any-return]


@lru_cache(maxsize=64)
def schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Return the Arrow schema; each field's metadata `clickhouse` names the type an added column would have."""
    return pa.schema([_field(column) for column in columns])


def _field(column: Column) -> pa.Field:
    kind = column_type(column.type_oid)
    name = kind.clickhouse if column.name in _NEVER_NULL else f"Nullable({kind.clickhouse})"
    printed = {BYTEA: b""} if column.type_oid == Oid.BYTEA else {}
    return pa.field(column.name, kind.arrow, metadata={b"clickhouse": name.encode()} | printed)

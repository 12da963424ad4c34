"""Python values -> frames as the server sends them; the opposite of the decoder, for tests only."""

from __future__ import annotations

import json
import struct
import uuid
from typing import TYPE_CHECKING, Any

from cdc_reader.column_types import Oid
from cdc_reader.message import Column, Relation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa

EVENTS = Relation(
    16_400,
    "public",
    "outbox",
    "d",
    (
        Column("id", Oid.INT8, key=True),
        Column("event_type", Oid.VARCHAR, 259),
        Column("event_date_time", Oid.TIMESTAMPTZ),
        Column("environment", Oid.VARCHAR, 259),
        Column("event_context", Oid.JSONB),
        Column("metadata_version", Oid.INT8),
        Column("processed", Oid.BOOL),
    ),
)
TABLES = {"public.outbox": "event_log"}

_FORMS: dict[int, Callable[[Any], bytes]] = {
    Oid.BOOL: lambda value: struct.pack(">?", value),
    Oid.INT2: lambda value: struct.pack(">h", value),
    Oid.INT4: lambda value: struct.pack(">i", value),
    Oid.INT8: lambda value: struct.pack(">q", value),
    Oid.OID: lambda value: struct.pack(">I", value),
    Oid.FLOAT4: lambda value: struct.pack(">f", value),
    Oid.FLOAT8: lambda value: struct.pack(">d", value),
    Oid.DATE: lambda value: struct.pack(">i", value),
    Oid.TIMESTAMP: lambda value: struct.pack(">q", value),
    Oid.TIMESTAMPTZ: lambda value: struct.pack(">q", value),
    Oid.UUID: lambda value: uuid.UUID(str(value)).bytes,
    Oid.JSONB: lambda value: b"\x01" + value,
}


def data(message: bytes, wal_start: int = 0, wal_end: int = 0) -> bytes:
    """Wrap a message as XLogData."""
    return struct.pack(">cQQq", b"w", wal_start, wal_end, 0) + message


def keepalive(wal_end: int, *, reply_requested: bool = False) -> bytes:
    return struct.pack(">cQq?", b"k", wal_end, 0, reply_requested)


def begin(commit_lsn: int, commit_ts: int = 0, xid: int = 1) -> bytes:
    return data(struct.pack(">cQqi", b"B", commit_lsn, commit_ts, xid))


def commit(commit_lsn: int, end_lsn: int | None = None, commit_ts: int = 0) -> bytes:
    end_lsn = commit_lsn + 8 if end_lsn is None else end_lsn
    return data(struct.pack(">cbQQq", b"C", 0, commit_lsn, end_lsn, commit_ts))


def name(text: str) -> bytes:
    return text.encode() + b"\0"


def relation(of: Relation = EVENTS) -> bytes:
    head = struct.pack(">cI", b"R", of.oid) + name(of.namespace) + name(of.name) + of.replica_identity.encode()
    columns = [
        struct.pack(">b", column.key) + name(column.name) + struct.pack(">Ii", column.type_oid, column.type_modifier)
        for column in of.columns
    ]
    return data(head + struct.pack(">h", len(columns)) + b"".join(columns))


def binary(type_oid: int, value: Any) -> bytes:
    """Give the binary form of a value; text as bytes, dates and times as numbers since 2000."""
    return bytes(_FORMS.get(type_oid, bytes)(value))


def row(values: Sequence[bytes | None], kind: bytes = b"b") -> bytes:
    """Build a tuple of raw values."""
    cells = [b"n" if value is None else kind + struct.pack(">i", len(value)) + value for value in values]
    return struct.pack(">h", len(cells)) + b"".join(cells)


def raw_insert(values: Sequence[bytes | None], oid: int = EVENTS.oid, kind: bytes = b"b") -> bytes:
    return data(struct.pack(">cIc", b"I", oid, b"N") + row(values, kind))


def insert(values: Sequence[Any], of: Relation = EVENTS) -> bytes:
    """Build a row in binary form."""
    pairs = zip(of.columns, values, strict=True)
    return raw_insert([None if one is None else binary(column.type_oid, one) for column, one in pairs], of.oid)


def event(number: int, kind: bytes = b"order.placed", at_us: int | None = 0, context: bytes = b'{"a": 1}') -> bytes:
    """Build a row of the outbox."""
    return insert([number, kind, at_us, b"production", context, 1, False])


def everything(number: int = 1) -> Relation:
    """Build a relation with a column of every type that has a binary form."""
    columns = tuple(Column(f"a_{oid.name.lower()}", oid) for oid in Oid)
    return Relation(20_000 + number, "public", "outbox", "d", columns)


def same(left: pa.RecordBatch, right: pa.RecordBatch) -> bool:
    """Compare schemas with their metadata, and values, NaN with NaN and -0.0 not with 0.0."""
    return bool(left.schema.equals(right.schema, check_metadata=True)) and repr(left.to_pylist()) == repr(
        right.to_pylist()
    )


def emitted(
    content: bytes | dict[str, Any], lsn: int = 8, prefix: str = "outhaul", *, transactional: bool = True
) -> bytes:
    """Build a logical decoding message."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return data(struct.pack(">cbQ", b"M", transactional, lsn) + name(prefix) + struct.pack(">i", len(body)) + body)

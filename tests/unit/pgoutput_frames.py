"""Python values -> frames as the server sends them; the opposite of the decoder, for tests only."""

from __future__ import annotations

import ipaddress
import json
import struct
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.capture.column_types import Oid
from outhaul.cdc_reader.capture.pgoutput_messages import Column, Relation

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


def numeric(value: Decimal) -> bytes:
    """Give the binary form of a number, with the scale that it is written in."""
    if not value.is_finite():
        return struct.pack(">hhHH", 0, 0, 0xC000 if value.is_nan() else 0xF000 if value < 0 else 0xD000, 0)
    sign, digits, exponent = value.as_tuple()
    scale = max(-int(exponent), 0)
    text = "".join(map(str, digits)) + "0" * max(int(exponent), 0)
    whole, fraction = text[: len(text) - scale], text[len(text) - scale :].rjust(scale, "0") if scale else ""
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[at : at + 4]) for at in range(0, len(whole + fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and not groups[0]:
        groups.pop(0)
        weight -= 1
    while groups and not groups[-1]:
        groups.pop()
    if not groups:
        weight, sign = 0, 0
    return struct.pack(f">hhHH{len(groups)}h", len(groups), weight, 0x4000 if sign else 0, scale, *groups)


def network(value: str, *, is_cidr: bool) -> bytes:
    """Give the binary form of an address, with or without its mask."""
    one = ipaddress.ip_interface(value)
    packed = one.ip.packed
    return bytes([2 if one.version == 4 else 3, one.network.prefixlen, is_cidr, len(packed)]) + packed


def bits(value: str) -> bytes:
    """Give the binary form of a bit string."""
    padded = value.ljust(-(-len(value) // 8) * 8, "0")
    return struct.pack(">i", len(value)) + bytes(int(padded[at : at + 8], 2) for at in range(0, len(padded), 8))


def array(element_oid: int, elements: Sequence[bytes | None], *dimensions: tuple[int, int]) -> bytes:
    """Give the binary form of an array of raw elements; (size, lower bound) of its dimensions where it has not one."""
    shape = dimensions or (((len(elements), 1),) if elements else ())
    head = struct.pack(">iiI", len(shape), None in elements, element_oid)
    cells = [struct.pack(">i", -1) if one is None else struct.pack(">i", len(one)) + one for one in elements]
    return head + b"".join(struct.pack(">ii", *one) for one in shape) + b"".join(cells)


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
    Oid.NUMERIC: lambda value: numeric(Decimal(value)),
    Oid.TIME: lambda value: struct.pack(">q", value),
    Oid.TIMETZ: lambda value: struct.pack(">qi", *value),
    Oid.INTERVAL: lambda value: struct.pack(">qii", *value),
    Oid.INET: lambda value: network(value, is_cidr=False),
    Oid.CIDR: lambda value: network(value, is_cidr=True),
    Oid.BIT: bits,
    Oid.VARBIT: bits,
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

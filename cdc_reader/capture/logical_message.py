"""Logical decoding messages with an event as JSON -> the columns that a row of the outbox would have.

Pure. For apps without an outbox table: `pg_logical_emit_message(true, 'outhaul', '{"event_type": …}')` writes an event
into the WAL alone. The JSON's members have the names of the outbox's columns. A message that is not an event becomes a
dead letter with the whole message. The first level of the JSON is parsed here, so that the context keeps every digit
that the app wrote.

Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from outhaul.cdc_reader.capture.column_types import Oid, column_type, schema
from outhaul.cdc_reader.capture.columns import RefusedRow, Rows
from outhaul.cdc_reader.capture.pg_text import row_json
from outhaul.cdc_reader.capture.pgoutput_messages import Column
from outhaul.sink.errors import FrameError, PoisonError
from outhaul.sink.timestamps import microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outhaul.sink.position import Lsn

FIRST_ORDINAL = 1 << 39
"""Ordinal of a transaction's first message. Messages are counted apart from rows, so that a row has the same position
whether messages are captured or not."""

_COLUMNS = (
    Column("id", Oid.INT8),
    Column("event_type", Oid.VARCHAR),
    Column("event_date_time", Oid.TIMESTAMPTZ),
    Column("environment", Oid.VARCHAR),
    Column("event_context", Oid.JSONB),
    Column("metadata_version", Oid.INT8),
    Column("event_key", Oid.TEXT),
)
# Most apps send no trace context; the column is added to ClickHouse with the first event that has one.
_TRACE = Column("traceparent", Oid.TEXT)
_MEMBERS = frozenset(column.name for column in (*_COLUMNS, _TRACE)) - {"id"}
_REQUIRED = ("event_type", "environment", "event_context")
_TEXTS = ("event_type", "environment", "event_date_time", "event_key", "traceparent")
_INT64 = range(-(1 << 63), 1 << 63)
# A member of an object: the character before it, and its name, up to its value. Then the end of the object.
_MEMBER = re.compile(r'[ \t\n\r]*([{,])[ \t\n\r]*("(?:[^"\\\x00-\x1f]|\\.)*")[ \t\n\r]*:[ \t\n\r]*')
_END = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*")

_Values: TypeAlias = dict[str, Any]
# An id is a signed integer of 64 bits.
_MAX_LSN = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Emitted:
    """A message with outhaul's prefix: the LSN of its record, and its content."""

    lsn: Lsn
    content: bytes


def decode_emitted(messages: Sequence[Emitted]) -> Rows:
    """Decode messages, in their order; a message that is not an event is refused, with the reason.

    The id of an event is its negated LSN. It is unique: each message has its own LSN, and ids of rows are positive.

    Raises:
        FrameError: an LSN is out of range for an id.
    """
    if any(message.lsn > _MAX_LSN for message in messages):
        raise FrameError("the LSN of a message is out of range")
    read = [_read(message) for message in messages]
    values = [one if isinstance(one, dict) else {} for one in read]
    columns = [*_COLUMNS, *([_TRACE] if any("traceparent" in one for one in values) else [])]
    arrays = [
        pa.array([-int(message.lsn) for message in messages], pa.int64()),
        *(
            pa.array([one.get(column.name) for one in values], column_type(column.type_oid).arrow)
            for column in columns[1:]
        ),
    ]
    return Rows(
        pa.RecordBatch.from_arrays(arrays, schema=schema(tuple(columns))),
        np.array([not isinstance(one, dict) for one in read], np.bool_),
        tuple(
            RefusedRow(row, row_json({"message": messages[row].content}), one)
            for row, one in enumerate(read)
            if isinstance(one, str)
        ),
    )


def _read(message: Emitted) -> _Values | str:
    """Return the values of the event's columns, or why the message is not an event."""
    try:
        raw, parsed = _members(message.content.decode())
        return _checked(raw, parsed)
    except (ValueError, RecursionError, PoisonError) as error:
        return f"not an event: {error}"


def _checked(raw: dict[str, str], parsed: _Values) -> _Values:
    for name in _REQUIRED:
        if parsed.get(name) is None:
            raise ValueError(f"{name} is missing")
    for name in parsed.keys() - _MEMBERS:
        raise ValueError(f"{name!r:.80} is not a column of an event; put further values into event_context")
    values: _Values = {}
    for name in _TEXTS:
        if (value := parsed.get(name)) is None:
            continue
        if not isinstance(value, str):
            raise ValueError(f"{name} is not a string")  # noqa: TRY004 - the message is wrong, not the call
        values[name] = microseconds(value, "DateTime64(6)") if name == "event_date_time" else value.encode()
    version = parsed.get("metadata_version", 1)
    if version is not None and (type(version) is not int or version not in _INT64):
        raise ValueError("metadata_version is not an integer of 64 bits")
    return values | {"metadata_version": version, "event_context": raw["event_context"].encode()}


def _members(text: str) -> tuple[dict[str, str], _Values]:
    """Parse a JSON object; return the text and the parsed value of each member."""
    raw: dict[str, str] = {}
    parsed: _Values = {}
    at, before = 0, "{"
    while True:
        begun = _MEMBER.match(text, at)
        if begun is None or begun[1] != before:
            raise ValueError(f"the JSON is not valid at character {at}")
        name = json.loads(begun[2]) if "\\" in begun[2] else begun[2][1:-1]
        if name in raw:
            raise ValueError(f"{name!r:.80} occurs twice")
        parsed[name], at = _DECODER.raw_decode(text, begun.end())
        raw[name] = text[begun.end() : at]
        if end := _END.match(text, at):
            if end.end() != len(text):
                raise ValueError("characters follow the end of the JSON")
            return raw, parsed
        before = ","


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)

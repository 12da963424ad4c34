"""Cells in Postgres' text form -> the same array as from the binary form, and which rows are out of ClickHouse's range.

Pure. The session's settings make Postgres print ISO dates, UTC, hex bytea and shortest exact floats; any other form is
an error. Arrow parses all rows at once; only dates that Arrow cannot parse (infinity, BC, five-digit years) are checked
one by one.

Source: https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-DATETIME-OUTPUT
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from outhaul.cdc_reader.capture import arrow
from outhaul.cdc_reader.capture.binary_cells import CHARS, POSTGRES_EPOCH_DAYS, DecodedColumn, dates, timestamps
from outhaul.cdc_reader.capture.column_types import Oid, column_type
from outhaul.cdc_reader.capture.pgoutput_messages import POSTGRES_EPOCH_US
from outhaul.sink.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.capture.cells import Cells
    from outhaul.cdc_reader.capture.frame import Bools

_LAST_ASCII = 127
_NO_DIGIT = 255
_NIBBLE = np.full(256, _NO_DIGIT, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_UUID_DASHES = np.array([8, 13, 18, 23])
_UUID_HEX_AT = np.setdiff1d(np.arange(36), _UUID_DASHES)
_HEX_PREFIX = b"\\x"
_ZONE = b"+00"
_DATE_BYTES = len("2000-01-01")
_TIMESTAMP_BYTES = len("2000-01-01 00:00:00")
_ODD_DATE = re.compile(rb"-?infinity|\d{4,7}-\d\d-\d\d( BC)?")
_ODD_TIMESTAMP = re.compile(rb"-?infinity|\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?( BC)?")
_ODD_TIMESTAMPTZ = re.compile(rb"-?infinity|\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00( BC)?")


def decode(cells: Cells, type_oid: int) -> DecodedColumn:
    """Decode one column; a type that is not in `Oid` stays text.

    Raises:
        FrameError: a value has not the text form of its type.
    """
    decoder = _DECODERS.get(type_oid)
    if decoder is None:
        return DecodedColumn(cells.contents())
    try:
        return decoder(cells, Oid(type_oid))
    except pa.ArrowException as error:
        raise FrameError(f"a value is not a {Oid(type_oid).name.lower()}: {error}") from None


def _bool(cells: Cells, _: Oid) -> DecodedColumn:
    cells.check_width(1)
    values = np.frombuffer(cells.buffer, np.uint8)[cells.start]
    true = values == ord("t")
    if (~true & (values != ord("f")) & cells.valid).any():
        raise FrameError("a bool is neither true nor false")
    return DecodedColumn(cells.bools(true & cells.valid))


def _char(cells: Cells, _: Oid) -> DecodedColumn:
    """Print a byte above 127 as Postgres 16 and later do; earlier versions send the byte itself."""
    first = np.frombuffer(cells.buffer, np.uint8)[cells.start]
    high = cells.valid & (cells.length == 1) & (first > _LAST_ASCII)
    if not high.any():
        return DecodedColumn(cells.contents())
    return DecodedColumn(pc.if_else(arrow.bools(high), CHARS.take(arrow.numbers(first, pa.uint8())), cells.contents()))


def _integer(cells: Cells, oid: Oid) -> DecodedColumn:
    text = cells.contents(pa.string())
    array = pc.cast(text, column_type(oid).arrow)
    if not pc.cast(array, pa.string()).equals(text):
        raise FrameError("a number is not printed as Postgres prints it")
    return DecodedColumn(array)


def _float(cells: Cells, oid: Oid) -> DecodedColumn:
    return DecodedColumn(pc.cast(cells.contents(pa.string()), column_type(oid).arrow))


def _bytea(cells: Cells, _: Oid) -> DecodedColumn:
    raw = np.frombuffer(cells.buffer, np.uint8)
    prefixed = (raw[cells.start] == ord("\\")) & (raw[cells.start + 1] == ord("x"))
    if (cells.valid & (~prefixed | (cells.length < len(_HEX_PREFIX)) | (cells.length % 2 != 0))).any():
        raise FrameError("a bytea value is not printed in hex")
    text = cells.inner(len(_HEX_PREFIX)).contents()
    missing, offsets, digits = text.buffers()
    ends = np.frombuffer(offsets, np.int32)[: len(text) + 1]
    nibbles = _NIBBLE[np.frombuffer(digits or b"", np.uint8)[: ends[-1]]]
    if (nibbles == _NO_DIGIT).any():
        raise FrameError("a bytea value is not printed in hex")
    data = nibbles[0::2] << 4 | nibbles[1::2]
    parts = [missing, pa.py_buffer(ends // 2), pa.py_buffer(data)]
    return DecodedColumn(pa.Array.from_buffers(pa.binary(), len(text), parts))


def _uuid(cells: Cells, _: Oid) -> DecodedColumn:
    text = cells.matrix(36)
    if (text[:, _UUID_DASHES] != ord("-")).any() or (_NIBBLE[text[:, _UUID_HEX_AT]] == _NO_DIGIT).any():
        raise FrameError("a uuid is not printed as Postgres prints it")
    return DecodedColumn(cells.array_of_width(text))


def _date(cells: Cells, _: Oid) -> DecodedColumn:
    regular = cells.only(_starts_with_year(cells, _DATE_BYTES) & (cells.length == _DATE_BYTES))
    _check_odd(cells, regular.valid, _ODD_DATE)
    array = pc.cast(regular.contents(pa.string()), pa.date32())
    since_1970 = pc.fill_null(array.view(pa.int32()), 0).to_numpy().astype(np.int64)
    return dates(cells, since_1970 - POSTGRES_EPOCH_DAYS, ~regular.valid)


def _timestamp(cells: Cells, oid: Oid) -> DecodedColumn:
    zone = _ZONE if oid is Oid.TIMESTAMPTZ else b""
    last = np.frombuffer(cells.buffer, np.uint8)[cells.start + np.maximum(cells.length, 1) - 1]
    ends_in_digit = (last >= ord("0")) & (last <= ord("9"))
    regular = cells.only(_starts_with_year(cells, _TIMESTAMP_BYTES + len(zone)) & ends_in_digit)
    _check_odd(cells, regular.valid, _ODD_TIMESTAMPTZ if zone else _ODD_TIMESTAMP)
    if zone:
        regular = _without_zone(regular)
    array = pc.cast(regular.contents(pa.string()), pa.timestamp("us"))
    since_1970 = pc.fill_null(array.view(pa.int64()), 0).to_numpy()
    return timestamps(cells, since_1970 - POSTGRES_EPOCH_US, ~regular.valid)


def _starts_with_year(cells: Cells, least_bytes: int) -> Bools:
    """Return a mask of the values with a year of four digits, which Arrow can parse."""
    raw = np.frombuffer(cells.buffer, np.uint8)
    year: Bools = (cells.length >= least_bytes) & (raw[cells.start + 4] == ord("-"))
    return year


def _without_zone(cells: Cells) -> Cells:
    raw = np.frombuffer(cells.buffer, np.uint8)
    at = cells.start + cells.length - len(_ZONE)
    if any((cells.valid & (raw[at + i] != byte)).any() for i, byte in enumerate(_ZONE)):
        raise FrameError(
            "a timestamptz is not printed in UTC",
            todo="Check what stands between the reader and Postgres, and changes the time zone of its session",
        )
    return cells.inner(0, len(_ZONE))


def _check_odd(cells: Cells, regular: Bools, odd: re.Pattern[bytes]) -> None:
    for row in np.flatnonzero(cells.valid & ~regular):
        if not odd.fullmatch(cells.raw(int(row)) or b""):
            raise FrameError(f"a date or time is not printed in ISO style: {cells.raw(int(row))!r}")


_DECODERS: dict[int, Callable[[Cells, Oid], DecodedColumn]] = {
    Oid.BOOL: _bool,
    Oid.CHAR: _char,
    Oid.BYTEA: _bytea,
    Oid.INT8: _integer,
    Oid.INT2: _integer,
    Oid.INT4: _integer,
    Oid.OID: _integer,
    Oid.FLOAT4: _float,
    Oid.FLOAT8: _float,
    Oid.DATE: _date,
    Oid.TIMESTAMP: _timestamp,
    Oid.TIMESTAMPTZ: _timestamp,
    Oid.UUID: _uuid,
}

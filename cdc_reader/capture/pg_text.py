"""One value in Postgres' binary form -> the text that Postgres prints for it.

Pure. A dead letter has the whole row in this form, which people can read and which Postgres accepts as input. Values
are printed one by one, since rows that ClickHouse cannot store are rare; so are values of some rare types
(cdc_reader/capture/binary_cells.py).

Source: https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-DATETIME-OUTPUT, and `array_out` in
https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c
"""

from __future__ import annotations

import json
import math
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import prod
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from outhaul.cdc_reader.capture.column_types import ELEMENTS, Oid
from outhaul.cdc_reader.capture.pg_text_by_type import PRINTERS
from outhaul.sink.errors import FrameError

_DAY_US = 86_400_000_000
_DAYS_0000_03_01 = 730_425
"""Days from 0000-03-01 to 2000-01-01; a year that begins in March ends with its leap day."""

_LEAST_FIXED = -4
_MAX_DIGITS = 17
_INFINITE_DATE = {(1 << 31) - 1: "infinity", -(1 << 31): "-infinity"}
_INFINITE_TIMESTAMP = {(1 << 63) - 1: "infinity", -(1 << 63): "-infinity"}

_HEADER = struct.Struct(">iiI")
_DIMENSION = struct.Struct(">ii")
_LENGTH = struct.Struct(">i")
_MAX_DIMENSIONS = 6
_NULL = -1
_QUOTED = frozenset(b'"\\{},\t\n\v\f\r ')

_Printer: TypeAlias = Callable[[bytes], str]


def row_json(values: Mapping[str, bytes | None]) -> str:
    """Return a row of printed values as JSON; bytes that are not UTF-8 become single surrogates (`surrogateescape`)."""
    row = {name: None if value is None else value.decode("utf-8", "surrogateescape") for name, value in values.items()}
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(row)
    return text


def printed(raw: bytes, type_oid: int) -> bytes:
    """Return the text of a value in binary form that cdc_reader/capture/binary_cells.py has checked."""
    if type_oid in ELEMENTS:
        return _array(raw, ELEMENTS[Oid(type_oid)])
    printer = _PRINTERS.get(type_oid)
    return raw if printer is None else printer(raw).encode("latin-1")


@dataclass(frozen=True, slots=True)
class Elements:
    """An array: (size, lower bound) of each dimension, and (start, length) in bytes of each element, None for NULL."""

    dimensions: tuple[tuple[int, int], ...]
    spans: tuple[tuple[int, int] | None, ...]


def parse_array(raw: bytes, element_oid: int) -> Elements:
    """Find the elements of an array.

    Raises:
        FrameError: the bytes are not an array of this type, or have another length.
    """
    try:
        count, flags, oid = _HEADER.unpack_from(raw)
        if not 0 <= count <= _MAX_DIMENSIONS or flags not in {0, 1} or oid != element_oid:
            raise FrameError("an array has not the header of its type")
        at = _HEADER.size + count * _DIMENSION.size
        dimensions = tuple(_DIMENSION.unpack_from(raw, _HEADER.size + n * _DIMENSION.size) for n in range(count))
        total = prod(size for size, _ in dimensions) if dimensions else 0
        # Each element has a length field of four bytes: this refuses an impossible number of elements before the loop.
        if any(size < 1 for size, _ in dimensions) or total > (len(raw) - at) // _LENGTH.size:
            raise FrameError("an array has not the number of elements in its header")
        spans: list[tuple[int, int] | None] = []
        for _ in range(total):
            (length,) = _LENGTH.unpack_from(raw, at)
            at += _LENGTH.size
            spans.append(None if length == _NULL else (at, length))
            if length < _NULL or at + max(length, 0) > len(raw):
                raise FrameError("an element is longer than its array")
            at += max(length, 0)
    except struct.error:
        raise FrameError("an array is too short") from None
    if at != len(raw):
        raise FrameError("bytes are left at the end of an array")
    return Elements(dimensions, tuple(spans))


def _array(raw: bytes, element_oid: int) -> bytes:
    found = parse_array(raw, element_oid)
    if not found.dimensions:
        return b"{}"
    texts = [
        b"NULL" if span is None else _quoted(printed(raw[span[0] : sum(span)], element_oid)) for span in found.spans
    ]
    bounds = b""
    if any(lower != 1 for _, lower in found.dimensions):
        bounds = b"".join(b"[%d:%d]" % (lower, lower + size - 1) for size, lower in found.dimensions) + b"="
    return bounds + _nested(texts, [size for size, _ in found.dimensions])


def _nested(texts: Sequence[bytes], sizes: Sequence[int]) -> bytes:
    if len(sizes) > 1:
        step = len(texts) // sizes[0]
        texts = [_nested(texts[at : at + step], sizes[1:]) for at in range(0, len(texts), step)]
    return b"{" + b",".join(texts) + b"}"


def _quoted(text: bytes) -> bytes:
    if text and text.upper() != b"NULL" and _QUOTED.isdisjoint(text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _number(
    form: str, infinities: Mapping[int, str] = MappingProxyType({}), show: Callable[[int], str] = str
) -> _Printer:
    def print_number(raw: bytes) -> str:
        value = struct.unpack(form, raw)[0]
        return infinities.get(value) or show(value)

    return print_number


def _timestamp(since_2000: int, zone: str) -> str:
    day, us = divmod(since_2000, _DAY_US)
    seconds, us = divmod(us, 1_000_000)
    fraction = f".{us:06d}".rstrip("0") if us else ""
    return _with_era(day, f" {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}{zone}")


def _with_era(since_2000: int, rest: str) -> str:
    year, month, day = _calendar_date(since_2000)
    if year > 0:
        return f"{year:04d}-{month:02d}-{day:02d}{rest}"
    return f"{1 - year:04d}-{month:02d}-{day:02d}{rest} BC"


def _calendar_date(since_2000: int) -> tuple[int, int, int]:
    """Return year, month and day of the proleptic Gregorian calendar; the year before 1 is 0."""
    era, day = divmod(since_2000 + _DAYS_0000_03_01, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    next_year = month // 10
    return era * 400 + year + next_year, month + 3 - 12 * next_year, day - (153 * month + 2) // 5 + 1


def _char(raw: bytes) -> str:
    if raw[0] >= 1 << 7:
        return f"\\{raw[0]:03o}"
    return chr(raw[0]) if raw[0] else ""


def _float(value: np.floating[Any], digits: int) -> str:
    """Print as Postgres does, in scientific notation from 10^digits on."""
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "-0" if np.signbit(value) else "0"
    shortest = _shortest(value)
    exponent = shortest.adjusted()
    if _LEAST_FIXED <= exponent < digits:
        return f"{shortest:f}"
    mantissa = shortest.scaleb(-exponent).normalize()
    return f"{mantissa:f}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _shortest(value: np.floating[Any]) -> Decimal:
    """Return the shortest decimal that lies between the halfway points to both neighbours of this number.

    A decimal exactly on a halfway point is read as the even one of two numbers. `repr` uses such a decimal, Postgres
    does not: 6.3536546142495136e+16 keeps its last digit. Below a power of two the neighbour is nearer than above it,
    so the nearest decimal of some length may lie outside when the next higher one lies inside.
    """
    exact = Fraction(float(value))
    below, above = (_halfway(value, exact, towards) for towards in (-np.inf, np.inf))
    for precision in range(_MAX_DIGITS):
        nearest = Decimal(f"{float(value):.{precision}e}")
        step = Decimal(1).scaleb(nearest.adjusted() - precision)
        for candidate in (nearest, nearest + step, nearest - step):
            if below < Fraction(candidate) < above:
                return candidate
    return Decimal(repr(float(value)))


def _halfway(value: np.floating[Any], exact: Fraction, towards: float) -> Fraction:
    with np.errstate(over="ignore"):
        neighbour = float(np.nextafter(value, type(value)(towards)))
    if not math.isfinite(neighbour):
        return exact + (exact - _halfway(value, exact, -towards))
    return (exact + Fraction(neighbour)) / 2


_PRINTERS: dict[int, _Printer] = {
    **PRINTERS,
    Oid.BOOL: lambda raw: "t" if raw[0] else "f",
    Oid.BYTEA: lambda raw: "\\x" + raw.hex(),
    Oid.CHAR: _char,
    Oid.INT2: _number(">h"),
    Oid.INT4: _number(">i"),
    Oid.INT8: _number(">q"),
    Oid.OID: _number(">I"),
    Oid.FLOAT4: lambda raw: _float(np.float32(struct.unpack(">f", raw)[0]), 6),
    Oid.FLOAT8: lambda raw: _float(np.float64(struct.unpack(">d", raw)[0]), 15),
    Oid.DATE: _number(">i", _INFINITE_DATE, lambda value: _with_era(value, "")),
    Oid.TIMESTAMP: _number(">q", _INFINITE_TIMESTAMP, lambda value: _timestamp(value, "")),
    Oid.TIMESTAMPTZ: _number(">q", _INFINITE_TIMESTAMP, lambda value: _timestamp(value, "+00")),
    Oid.UUID: lambda raw: str(uuid.UUID(bytes=raw)),
    Oid.JSONB: lambda raw: raw[1:].decode("latin-1"),
}

"""Numerics in Postgres' binary form -> the texts that Postgres prints, as one Arrow array.

Pure. Nearly all numbers have up to 18 digits: these are computed and printed for all rows of the same scale at once.
The others are printed one by one.

Source: `numeric_send` in https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/numeric.c
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from outhaul.cdc_reader.capture import arrow
from outhaul.cdc_reader.capture.frame import gather
from outhaul.sink.errors import FrameError

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.cells import Cells
    from outhaul.cdc_reader.capture.frame import Bools, Ints

_HEADER_BYTES = 8
_NEGATIVE = 0x4000
_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
_MAX_SCALE = 0x3FFF
_BASE, _BASE_DIGITS = 10_000, 4
# For every row, this many digits of the base are read; with fewer digits, the read ends in the padding of the buffer.
_MAX_GROUPS = 4
_MAX_DIGITS = 18


def print_numeric(raw: bytes) -> str:
    """Print one value with all digits of its scale.

    Raises:
        FrameError: the bytes are not a numeric.
    """
    if len(raw) < _HEADER_BYTES:
        raise FrameError("a numeric is too short")
    count, weight, sign, scale = struct.unpack_from(">hhHH", raw)
    if count < 0 or len(raw) != _HEADER_BYTES + 2 * count or scale > _MAX_SCALE:
        raise FrameError("a numeric has not the number of digits in its header")
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    digits = struct.unpack_from(f">{count}h", raw, _HEADER_BYTES)
    if sign not in {0, _NEGATIVE} or any(not 0 <= digit < _BASE for digit in digits):
        raise FrameError("the sign or a digit of a numeric is not valid")

    def groups(first: int, end: int) -> str:
        return "".join(f"{digits[at] if 0 <= at < count else 0:04d}" for at in range(first, end))

    whole = groups(0, weight + 1).lstrip("0") or "0"
    fraction = groups(weight + 1, weight + 2 + scale // _BASE_DIGITS)[:scale]
    return ("-" if sign else "") + whole + ("." + fraction if fraction else "")


def decode(cells: Cells) -> pa.Array:
    """Print a column.

    Raises:
        FrameError: a value is not a numeric.
    """
    if ((cells.length < _HEADER_BYTES) & cells.valid).any():
        raise FrameError("a numeric is too short")
    groups, weight = (_field(cells, at, np.int16) for at in (0, 2))
    sign, scale = (_field(cells, at, np.uint16) for at in (4, 6))
    short = cells.valid & (groups >= 0) & (groups <= _MAX_GROUPS) & (cells.length == _HEADER_BYTES + 2 * groups)
    short &= ((sign == 0) | (sign == _NEGATIVE)) & (_BASE_DIGITS * (weight + 1) + scale <= _MAX_DIGITS)
    short &= scale <= _MAX_DIGITS
    values = np.zeros(len(groups), np.int64)
    for at in range(_MAX_GROUPS):
        digit = np.where(at < groups, _field(cells, _HEADER_BYTES + 2 * at, np.int16), 0)
        if (short & ((digit < 0) | (digit >= _BASE))).any():
            raise FrameError("the sign or a digit of a numeric is not valid")
        values += _shifted(digit, _BASE_DIGITS * (weight - at) + scale, short)
    return _assembled(cells, short, values, sign == _NEGATIVE, scale)


def _field(cells: Cells, at: int, kind: type[np.int16 | np.uint16]) -> Ints:
    found: Ints = gather(cells.buffer, cells.start + at * cells.valid, kind).astype(np.int64)
    return found


def _shifted(digit: Ints, power: Ints, short: Bools) -> Ints:
    up = np.where(short, np.clip(power, 0, _MAX_DIGITS - _BASE_DIGITS), 0)
    down = np.where(short, np.clip(-power, 0, _BASE_DIGITS), 0)
    moved: Ints = np.where(short, digit, 0) * 10**up // 10**down
    return moved


def _assembled(cells: Cells, short: Bools, values: Ints, negative: Bools, scale: Ints) -> pa.Array:
    """Print the rows of each scale, then the long numbers, and put all rows into their order again."""
    parts, rows = [pa.nulls(1, pa.binary())], [np.empty(0, np.int64)]
    for one in np.unique(scale[short]):
        places = np.flatnonzero(short & (scale == one))
        parts.append(_texts(values[places], negative[places], int(one)))
        rows.append(places)
    long = np.flatnonzero(cells.valid & ~short)
    parts.append(arrow.texts([print_numeric(cells.raw(int(row)) or b"").encode() for row in long]))
    rows.append(long)
    order = np.zeros(len(values), np.int64)
    found = np.concatenate(rows)
    order[found] = np.arange(1, len(found) + 1)
    return pa.concat_arrays(parts).take(arrow.numbers(order, pa.int64()))


def _texts(values: Ints, negative: Bools, scale: int) -> pa.Array:
    texts = pc.cast(arrow.numbers(values, pa.int64()), pa.string())
    if scale:
        texts = pc.utf8_lpad(texts, scale + 1, "0")
        texts = pc.utf8_replace_slice(texts, -scale, -scale, ".")
    if negative.any():
        texts = pc.if_else(arrow.bools(negative), pc.binary_join_element_wise("-", texts, ""), texts)
    return pc.cast(texts, pa.binary())

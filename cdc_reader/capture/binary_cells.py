"""Cells in Postgres' binary form -> one Arrow array, and which rows are out of ClickHouse's range.

Pure. Widths, version bytes and ranges are checked for all rows at once. A value that Postgres cannot have is an error.
A value that only ClickHouse cannot have is refused, and is NULL in the array.

Source: the `*send` functions in https://github.com/postgres/postgres/tree/master/src/backend/utils/adt
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from outhaul.cdc_reader.capture import arrow, numeric
from outhaul.cdc_reader.capture.cells import Cells
from outhaul.cdc_reader.capture.column_types import ELEMENTS, Oid, column_type
from outhaul.cdc_reader.capture.pg_text import parse_array, printed
from outhaul.cdc_reader.capture.pg_text_by_type import PRINTERS
from outhaul.cdc_reader.capture.pgoutput_messages import END_TIMESTAMP, MIN_TIMESTAMP, POSTGRES_EPOCH_US
from outhaul.cdc_reader.postgres.errors import UnsupportedBinary
from outhaul.sink.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.capture.frame import Bools, Bytes, Ints

POSTGRES_EPOCH_DAYS = 10_957
MIN_DATE = -2_451_545
END_DATE = 2_145_031_949
"""4714-11-24 BC and the first day of the year 5874898, in days since 2000."""

_DAY_US = 86_400_000_000
FIRST_DAY, LAST_DAY = -36_524, 109_572
"""1900-01-01 and 2299-12-31 in days since 2000: the range of ClickHouse's Date32 and DateTime64."""

_JSONB_VERSION = 1
_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)
_UUID_HEX_AT = np.array([at for at in range(36) if at not in {8, 13, 18, 23}])
CHARS = arrow.texts([b"", *(bytes([byte]) for byte in range(1, 128)), *(b"\\%03o" % byte for byte in range(128, 256))])
"""The 256 values of type "char", as Postgres 16 and later print them."""


@dataclass(frozen=True, slots=True)
class DecodedColumn:
    """A column, and a mask of its refused rows; None if no row is refused."""

    array: pa.Array
    refused: Bools | None = None


def decode(cells: Cells, type_oid: int) -> DecodedColumn:
    """Decode one column.

    Raises:
        FrameError: a value has not the form of its type.
        UnsupportedBinary: the form is a newer one.
        ValueError: the type is not in `Oid`; the caller checks that first.
    """
    return _DECODERS[Oid(type_oid)](cells, Oid(type_oid))


def dates(cells: Cells, since_2000: Ints, infinite: Bools) -> DecodedColumn:
    """Build a Date32 column from days since 2000; rows that are `infinite` or out of range are refused."""
    in_range = (since_2000 >= FIRST_DAY) & (since_2000 <= LAST_DAY) & ~infinite
    return _in_range(cells, (since_2000 + POSTGRES_EPOCH_DAYS).astype(np.int32), in_range, Oid.DATE)


def timestamps(cells: Cells, since_2000: Ints, infinite: Bools) -> DecodedColumn:
    """Build a DateTime64 column from microseconds since 2000; rows that are `infinite` or out of range are refused."""
    in_range = (since_2000 >= FIRST_DAY * _DAY_US) & (since_2000 < (LAST_DAY + 1) * _DAY_US) & ~infinite
    # The sum overflows only for values that are out of range.
    return _in_range(cells, since_2000 + POSTGRES_EPOCH_US, in_range, Oid.TIMESTAMPTZ)


def _in_range(cells: Cells, values: npt.NDArray[Any], in_range: Bools, oid: Oid) -> DecodedColumn:
    if in_range.all():
        return DecodedColumn(cells.array(_null_as_zero(cells, values), column_type(oid).arrow))
    valid = cells.valid & in_range
    values[~valid] = 0
    return DecodedColumn(cells.array(values, column_type(oid).arrow, valid), cells.valid & ~in_range)


def _null_as_zero(cells: Cells, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Write 0 for each NULL, so that equal rows have equal bytes."""
    if not cells.dense:
        values[~cells.valid] = 0
    return values


def _bool(cells: Cells, _: Oid) -> DecodedColumn:
    values = cells.numbers(np.uint8)
    if (values > 1).any():
        raise FrameError("a bool is neither true nor false")
    return DecodedColumn(cells.bools(values == 1))


def _number(kind: type[np.number[Any]]) -> Callable[[Cells, Oid], DecodedColumn]:
    def decode_number(cells: Cells, oid: Oid) -> DecodedColumn:
        return DecodedColumn(cells.array(cells.numbers(kind), column_type(oid).arrow))

    return decode_number


def _float(kind: type[np.floating[Any]]) -> Callable[[Cells, Oid], DecodedColumn]:
    def decode_float(cells: Cells, oid: Oid) -> DecodedColumn:
        values = cells.numbers(kind)
        values[np.isnan(values)] = np.nan
        return DecodedColumn(cells.array(values, column_type(oid).arrow))

    return decode_float


def _bytes(cells: Cells, _: Oid) -> DecodedColumn:
    return DecodedColumn(cells.contents())


def _jsonb(cells: Cells, _: Oid) -> DecodedColumn:
    if (cells.length[cells.valid] < 1).any():
        raise FrameError("a jsonb value is empty")
    versions = np.frombuffer(cells.buffer, np.uint8)[cells.start]
    if ((versions != _JSONB_VERSION) & cells.valid).any():
        raise UnsupportedBinary("a jsonb value has an unknown version of the binary form")
    return DecodedColumn(cells.inner(1).contents())


def _char(cells: Cells, _: Oid) -> DecodedColumn:
    return DecodedColumn(CHARS.take(cells.array(cells.numbers(np.uint8), pa.uint8())))


def _uuid(cells: Cells, _: Oid) -> DecodedColumn:
    raw = cells.matrix(16)
    text: Bytes = np.full((len(raw), 36), ord("-"), np.uint8)
    text[:, _UUID_HEX_AT] = _HEX[raw].reshape(-1, 32)
    return DecodedColumn(cells.array_of_width(text))


def _date(cells: Cells, _: Oid) -> DecodedColumn:
    values = cells.numbers(np.int32).astype(np.int64)
    limits = np.iinfo(np.int32)
    infinite = (values == limits.min) | (values == limits.max)
    if (~infinite & ((values < MIN_DATE) | (values >= END_DATE))).any():
        raise FrameError("a date is out of Postgres' range")
    return dates(cells, values, infinite)


def _timestamp(cells: Cells, _: Oid) -> DecodedColumn:
    values = cells.numbers(np.int64)
    limits = np.iinfo(np.int64)
    infinite = (values == limits.min) | (values == limits.max)
    if (~infinite & ((values < MIN_TIMESTAMP) | (values >= END_TIMESTAMP))).any():
        raise FrameError("a timestamp is out of Postgres' range")
    return timestamps(cells, values, infinite)


def _numeric(cells: Cells, _: Oid) -> DecodedColumn:
    return DecodedColumn(numeric.decode(cells))


def _time(cells: Cells, _: Oid) -> DecodedColumn:
    values = cells.numbers(np.int64)
    if ((values < 0) | (values > _DAY_US)).any():
        raise FrameError("a time is out of Postgres' range")
    texts = pc.cast(cells.array(values % _DAY_US, pa.time64("us")), pa.string())
    texts = pc.utf8_rtrim(pc.utf8_rtrim(texts, "0"), ".")
    if (values == _DAY_US).any():
        texts = pc.if_else(arrow.bools(values == _DAY_US), "24:00:00", texts)
    return DecodedColumn(pc.cast(texts, pa.binary()))


def _printed(cells: Cells, oid: Oid) -> DecodedColumn:
    """Print each distinct value once; for rare types that need no faster way."""
    found = cells.contents().dictionary_encode()
    return DecodedColumn(arrow.texts([printed(one.as_py(), oid) for one in found.dictionary]).take(found.indices))


def _array(cells: Cells, oid: Oid) -> DecodedColumn:
    """Check the elements of all rows as one column of the element type, then print the arrays."""
    starts, lengths, valid = [], [], []
    for row in np.flatnonzero(cells.valid):
        at = int(cells.start[row])
        for span in parse_array(cells.raw(int(row)) or b"", ELEMENTS[oid]).spans:
            starts.append(at if span is None else int(cells.start[row]) + span[0])
            lengths.append(0 if span is None else span[1])
            valid.append(span is not None)
            at = starts[-1] + lengths[-1]
    is_value = np.array(valid, np.bool_)
    decode(
        Cells(cells.buffer, np.array(starts, np.int64), np.array(lengths, np.int64), is_value, bool(is_value.all())),
        ELEMENTS[oid],
    )
    return _printed(cells, oid)


_DECODERS: dict[Oid, Callable[[Cells, Oid], DecodedColumn]] = {
    **{Oid(oid): _printed for oid in PRINTERS},
    **dict.fromkeys(ELEMENTS, _array),
    Oid.NUMERIC: _numeric,
    Oid.TIME: _time,
    Oid.BOOL: _bool,
    Oid.BYTEA: _bytes,
    Oid.CHAR: _char,
    Oid.NAME: _bytes,
    Oid.INT8: _number(np.int64),
    Oid.INT2: _number(np.int16),
    Oid.INT4: _number(np.int32),
    Oid.TEXT: _bytes,
    Oid.OID: _number(np.uint32),
    Oid.JSON: _bytes,
    Oid.FLOAT4: _float(np.float32),
    Oid.FLOAT8: _float(np.float64),
    Oid.BPCHAR: _bytes,
    Oid.VARCHAR: _bytes,
    Oid.DATE: _date,
    Oid.TIMESTAMP: _timestamp,
    Oid.TIMESTAMPTZ: _timestamp,
    Oid.UUID: _uuid,
    Oid.JSONB: _jsonb,
}

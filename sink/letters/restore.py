"""Dead letter -> its row, with types for the event table's present columns.

Pure. A letter contains its values as Postgres prints them. They are sent as text, and ClickHouse casts them to the
column's present type. So a column that was widened accepts a value that it refused before. Dates, times and floats are
converted here: ClickHouse silently changes dates and times that do not fit, and reads only two digits of a float's
exponent.

Source: https://clickhouse.com/docs/sql-reference/functions/type-conversion-functions
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from outhaul.sink.errors import PoisonError
from outhaul.sink.quarantine import DEAD_LETTER_SCHEMA
from outhaul.sink.timestamps import bare, is_time, microseconds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from outhaul.sink.position import Position

_DAY_US = 86_400_000_000
_HEX = "\\x"
_MOMENT = (pa.timestamp("us", "UTC"), "Nullable(DateTime64(6, 'UTC'))")
_DATE = (pa.date32(), "Nullable(Date32)")
_FLOAT = (pa.float64(), "Nullable(Float64)")
_TEXT = (pa.binary(), "Nullable(String)")


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter; times in microseconds since 1970."""

    position: Position
    row: str
    reason: str
    committed_at_us: int
    ingested_at_us: int
    discarded: bool


def values_of(letter: Letter) -> dict[str, str | None]:
    """Return the letter's values by column, as text.

    Raises:
        PoisonError: the letter contains no row.
    """
    try:
        row = json.loads(letter.row)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not row:
        raise PoisonError("the letter contains no row: its JSON is invalid")
    return {name: _text(value) for name, value in row.items()}


def restore(letter: Letter, types: Mapping[str, str], hex_columns: Collection[str]) -> pa.RecordBatch:
    """Return the letter as a batch of one row, with its cdc_* columns.

    Args:
        letter: the dead letter.
        types: columns of the event table, with their ClickHouse types.
        hex_columns: columns that are bytea in Postgres, whose values are printed in hex.

    Raises:
        PoisonError: a value has no column, or does not fit its column.
    """
    fields, arrays = [], []
    for name, text in values_of(letter).items():
        if name not in types:
            if text is None:
                continue
            raise PoisonError(f"{name}: the event table has no such column")
        (kind, clickhouse), value = _typed(name, text, types[name], name in hex_columns)
        fields.append(pa.field(name, kind, metadata={"clickhouse": clickhouse}))
        arrays.append(pa.array([value], kind))
    position = (int(letter.position.lsn), letter.position.ordinal, letter.committed_at_us)
    for field, number in zip(list(DEAD_LETTER_SCHEMA)[2:], position, strict=True):
        fields.append(field)
        arrays.append(pa.array([number], field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _typed(name: str, text: str | None, kind: str, in_hex: bool) -> tuple[tuple[pa.DataType, str], Any]:
    try:
        if bare(kind).startswith("Float"):
            return _FLOAT, None if text is None else _float(text, bare(kind))
        if not is_time(kind):
            return _TEXT, None if text is None else _bytes(text, in_hex)
        value = None if text is None else microseconds(text, kind)
    except PoisonError as error:
        raise PoisonError(f"{name}: {error}") from None
    if not bare(kind).startswith("DateTime"):
        return _DATE, None if value is None else value // _DAY_US
    return _MOMENT, value


def _float(text: str, kind: str) -> float:
    try:
        value, digits = float(text), Decimal(text)
    except (ValueError, InvalidOperation):
        raise PoisonError(f"{text} is not a {kind}") from None
    is_changed = (math.isinf(value) and digits.is_finite()) or (value == 0 and digits != 0)
    if kind == "Float32":
        # Compare the shortest digits, in which Postgres prints a real.
        with np.errstate(over="ignore"):
            is_changed |= not math.isnan(value) and float(str(np.float32(value))) != value
    if is_changed:
        raise PoisonError(f"{text} does not fit {kind}")
    return value


def _bytes(text: str, in_hex: bool) -> bytes:
    if in_hex and text.startswith(_HEX):
        try:
            return bytes.fromhex(text.removeprefix(_HEX))
        except ValueError:
            raise PoisonError("the bytea value is not printed in hex") from None
    # Bytes that are not UTF-8 are lone surrogates in a letter.
    return text.encode("utf-8", "surrogateescape")


def _text(value: object) -> str | None:
    # All values from Postgres are texts. An operator who corrected a letter by hand may have written a number.
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""Type of a column as the reader sends it, type of the ClickHouse column -> whether every value arrives unchanged.

Pure. ClickHouse converts the values of an INSERT ... SELECT as CAST does. A number that does not fit wraps around
without an error. A text that ClickHouse cannot read is NULL where the column is Nullable; elsewhere it is an error, and
its row becomes a dead letter. A column whose type was changed in Postgres keeps its old type in ClickHouse, so the
reader compares the types before it sends a batch.

Source: https://clickhouse.com/docs/sql-reference/functions/type-conversion-functions#cast
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.schema import column_type
from outhaul.sink.sql import identifier
from outhaul.sink.timestamps import bare

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

_INTEGER = re.compile(r"(U?)Int(\d+)")
_DIGITS = re.compile(r"\d+")
_MOMENT = re.compile(r"DateTime64\((\d+)")
# Every digit of a double counts up to here.
_EXACT_BITS = {"Float32": 24, "Float64": 53}
_TEXTS = ("JSON", "Object", "Enum", "FixedString", "Decimal", "Array", "Tuple", "Map", "IPv4", "IPv6", "UUID")
_MICROSECONDS, _NANOSECONDS = 6, 9

# ClickHouse refuses a value of another type by itself: its row becomes a dead letter.
_CHECKED = ("Int", "Float", "Decimal", "String")


class Fit(Enum):
    """What becomes of the values of a column."""

    WHOLE = auto()  # all arrive unchanged
    PARTLY = auto()  # some become dead letters or lose digits
    CHANGED = auto()  # ClickHouse would change some without an error


Verdict = tuple[Fit, str]
TAKES: Verdict = (Fit.WHOLE, "")


def check_fit(table: str, schema: pa.Schema, types: Mapping[str, str]) -> None:
    """Compare the columns of a batch with those of its table.

    Raises:
        FatalError: the first column in which ClickHouse would change values.
    """
    for field in schema:
        wanted, target = column_type(field), types.get(field.name)
        if target is None or not bare(wanted).startswith(_CHECKED):
            continue
        fit, trouble = takes(wanted, target)
        if fit is Fit.CHANGED:
            raise FatalError(
                f"{table}.{field.name} is {target} in ClickHouse, and the outbox has {wanted} there now: {trouble}",
                todo=f"ALTER TABLE {table} MODIFY COLUMN {identifier(field.name)} {wanted}; then start again. "
                "Nothing is lost: the slot waits",
                exit_code=Exit.CLICKHOUSE_TABLE,
            )


def takes(source: str, target: str) -> Verdict:
    """Judge one column: `source` as the reader sends it, `target` as the table has it; and what would go wrong."""
    may_be_null = "Nullable(" in target
    source, target = bare(source), bare(target)
    if target in {source, "String"}:
        return TAKES
    if source == "String" and may_be_null:
        return Fit.CHANGED, f"a text that is no {target} would be stored as NULL without a word"
    if _INTEGER.fullmatch(source) or source == "Bool":
        return _integer(source, target)
    if source.startswith("Float"):
        return TAKES if target == "Float64" else _changed(target)
    if source.startswith(("DateTime64", "Date32")):
        return _moment(source, target)
    if source.startswith("Decimal") and target.startswith("Decimal"):
        return _decimal(source, target)
    return _text(source, target)


def _decimal(source: str, target: str) -> Verdict:
    (digits, scale), (target_digits, target_scale) = (map(int, _DIGITS.findall(kind)) for kind in (source, target))
    if target_scale < scale:
        return _changed(target)
    if target_digits - target_scale < digits - scale:
        return Fit.PARTLY, f"{target} has fewer digits: numbers that do not fit become dead letters"
    return TAKES


def _integer(source: str, target: str) -> Verdict:
    signed, bits = _bits(source)
    if target in _EXACT_BITS:
        return TAKES if bits <= _EXACT_BITS[target] else _changed(target)
    if not _INTEGER.fullmatch(target):
        return TAKES if source == target else _changed(target)
    target_signed, target_bits = _bits(target)
    if signed and not target_signed:
        if target_bits < bits:
            return _changed(target)
        return Fit.PARTLY, f"{target} has no negative numbers: they would be stored as huge ones"
    room = target_bits - (1 if target_signed and not signed else 0)
    return TAKES if room >= bits else _changed(target)


def _bits(kind: str) -> tuple[bool, int]:
    if kind == "Bool":
        return False, 1
    found = _INTEGER.fullmatch(kind)
    return (not found[1], int(found[2])) if found else (True, 256)


def _moment(source: str, target: str) -> Verdict:
    found = _MOMENT.match(target)
    if found is None:
        return Fit.CHANGED, f"{target} has not the range of {source}: other times would be changed without a word"
    if source == "Date32":
        return TAKES
    digits = int(found[1])
    if digits < _MICROSECONDS:
        return Fit.PARTLY, f"{target} keeps {digits} of the six digits of a second"
    if digits >= _NANOSECONDS:
        return Fit.PARTLY, f"{target} ends in 2262: later events become dead letters"
    return TAKES


def _text(source: str, target: str) -> Verdict:
    if target.startswith(_TEXTS) or _INTEGER.fullmatch(target) or target in {"Bool", *_EXACT_BITS}:
        return Fit.PARTLY, f"{target} is read from {source}: values that it cannot read become dead letters"
    return Fit.PARTLY, f"whether {target} takes a {source} is for the server to say: what it refuses is a dead letter"


def _changed(target: str) -> Verdict:
    return Fit.CHANGED, f"{target} is too small: values that do not fit would be changed without a word"

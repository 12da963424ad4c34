"""Type of a column as the reader sends it, type of the ClickHouse column -> whether every value is stored unchanged.

Pure. ClickHouse converts the values of an INSERT ... SELECT as CAST does. A number that does not fit wraps around
without an error. A text that ClickHouse cannot convert becomes NULL in a Nullable column. In another column it is an
error, and its row becomes a dead letter. If the type of a column changes in Postgres, the column in ClickHouse keeps
its old type. So the reader compares the types before it sends a batch.

Source: https://clickhouse.com/docs/sql-reference/functions/type-conversion-functions#cast
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.quoting import clickhouse_identifier
from outhaul.sink.schema import column_type
from outhaul.sink.timestamps import bare

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

_INTEGER = re.compile(r"(U?)Int(\d+)")
_DIGITS = re.compile(r"\d+")
_DATETIME64 = re.compile(r"DateTime64\((\d+)")
# Integers of up to this many bits are exact in a float.
_EXACT_BITS = {"Float32": 24, "Float64": 53}
_TEXTS = ("JSON", "Object", "Enum", "FixedString", "Decimal", "Array", "Tuple", "Map", "IPv4", "IPv6", "UUID")
_MICROSECONDS, _NANOSECONDS = 6, 9

# Types whose values ClickHouse may change without an error. It refuses values of other types: dead letters.
_CHECKED = ("Int", "Float", "Decimal", "String")


class Fit(Enum):
    """What happens to the values of a column."""

    WHOLE = auto()  # all are stored unchanged
    PARTLY = auto()  # some become dead letters or lose digits
    CHANGED = auto()  # ClickHouse would change some without an error


Verdict = tuple[Fit, str]
FITS: Verdict = (Fit.WHOLE, "")


def check_fit(table: str, schema: pa.Schema, types: Mapping[str, str]) -> None:
    """Compare the columns of a batch with those of its table.

    Raises:
        FatalError: ClickHouse would change values of a column; the error names the first one.
    """
    for field in schema:
        wanted, target = column_type(field), types.get(field.name)
        if target is None or not bare(wanted).startswith(_CHECKED):
            continue
        fit, trouble = fit_of(wanted, target)
        if fit is Fit.CHANGED:
            name, column = map(clickhouse_identifier, (table, field.name))
            raise FatalError(
                f"{table}.{field.name} is {target} in ClickHouse, but {wanted} in the outbox now: {trouble}",
                todo=f"ALTER TABLE {name} MODIFY COLUMN {column} {wanted}; then start the reader. "
                "Nothing is lost: the slot keeps its position",
                exit_code=Exit.CLICKHOUSE_TABLE,
            )


def fit_of(source: str, target: str) -> Verdict:
    """Return what happens to values of type `source` in a column of type `target`, and what goes wrong."""
    may_be_null = "Nullable(" in target
    source, target = bare(source), bare(target)
    if target in {source, "String"}:
        return FITS
    if source == "String" and may_be_null:
        return Fit.CHANGED, f"a text that is not a {target} would be stored as NULL, without an error"
    if _INTEGER.fullmatch(source) or source == "Bool":
        return _integer(source, target)
    if source.startswith("Float"):
        return FITS if target == "Float64" else _changed(target)
    if source.startswith(("DateTime64", "Date32")):
        return _time(source, target)
    if source.startswith("Decimal") and target.startswith("Decimal"):
        return _decimal(source, target)
    return _text(source, target)


def _decimal(source: str, target: str) -> Verdict:
    (digits, scale), (target_digits, target_scale) = (map(int, _DIGITS.findall(kind)) for kind in (source, target))
    if target_scale < scale:
        return _changed(target)
    if target_digits - target_scale < digits - scale:
        return Fit.PARTLY, f"{target} has fewer digits: numbers that do not fit become dead letters"
    return FITS


def _integer(source: str, target: str) -> Verdict:
    signed, bits = _bits(source)
    if target in _EXACT_BITS:
        return FITS if bits <= _EXACT_BITS[target] else _changed(target)
    if not _INTEGER.fullmatch(target):
        return FITS if source == target else _changed(target)
    target_signed, target_bits = _bits(target)
    if signed and not target_signed:
        if target_bits < bits:
            return _changed(target)
        return Fit.PARTLY, f"{target} has no negative numbers: they would be stored as huge numbers"
    room = target_bits - (1 if target_signed and not signed else 0)
    return FITS if room >= bits else _changed(target)


def _bits(kind: str) -> tuple[bool, int]:
    if kind == "Bool":
        return False, 1
    found = _INTEGER.fullmatch(kind)
    return (not found[1], int(found[2])) if found else (True, 256)


def _time(source: str, target: str) -> Verdict:
    found = _DATETIME64.match(target)
    if found is None:
        return Fit.CHANGED, f"{target} has a smaller range than {source}: other times would be changed without an error"
    if source == "Date32":
        return FITS
    digits = int(found[1])
    if digits < _MICROSECONDS:
        return Fit.PARTLY, f"{target} keeps {digits} of the six digits of a second"
    if digits >= _NANOSECONDS:
        return Fit.PARTLY, f"{target} ends in 2262: later events become dead letters"
    return FITS


def _text(source: str, target: str) -> Verdict:
    if target.startswith(_TEXTS) or _INTEGER.fullmatch(target) or target in {"Bool", *_EXACT_BITS}:
        return Fit.PARTLY, f"ClickHouse parses {source} as {target}: values that it cannot parse become dead letters"
    return (
        Fit.PARTLY,
        f"unknown conversion of {source} to {target}: values that ClickHouse refuses become dead letters",
    )


def _changed(target: str) -> Verdict:
    return Fit.CHANGED, f"{target} is too small: values that do not fit would be changed without an error"

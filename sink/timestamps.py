"""Date or time as Postgres prints it -> microseconds since 1970, or an error if the ClickHouse column cannot hold it.

Pure. No value is clamped: ClickHouse would silently replace a time outside a column's range by a time inside it, so a
time outside the range is refused here. A time without a zone is UTC, as in the reader.

Source: https://clickhouse.com/docs/sql-reference/data-types/datetime64
"""

from __future__ import annotations

import re

from outhaul.sink.errors import PoisonError

_FORM = re.compile(
    r"(?P<year>\d{4,7})-(?P<month>\d\d)-(?P<day>\d\d)"
    r"(?:[ T](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6}))?)?"
    r"(?P<zone>Z|[+-]\d\d(?::?\d\d){0,2})?(?P<bc> BC)?"
)
_KIND = re.compile(r"(DateTime64|DateTime|Date32|Date)(?:\((\d+))?")
_WRAPPED = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)", re.DOTALL)

_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
_NANOSECONDS = 9
_LAST_MONTH, _LAST_HOUR, _LAST_MINUTE = 12, 24, 59
_MONTHS_31, _FEBRUARY = frozenset({1, 3, 5, 7, 8, 10, 12}), 2
# From 1900-01-01 up to 2300-01-01, in days since 1970.
_WIDE = (-25_567, 120_530)
_RANGES_DAYS = {"DateTime64": _WIDE, "Date32": _WIDE, "Date": (0, 65_536)}
_END_DATETIME_US = (1 << 32) * _SECOND_US
# DateTime64(9) ends where 64 bits of nanoseconds end; rounded down to whole seconds.
_END_NANOSECONDS_US = 9_223_372_036 * _SECOND_US


def bare(kind: str) -> str:
    """Return a ClickHouse type without Nullable and LowCardinality."""
    while match := _WRAPPED.fullmatch(kind):
        kind = match[1]
    return kind


def is_time(kind: str) -> bool:
    """Tell whether a ClickHouse type is a date or a time."""
    return _KIND.match(bare(kind)) is not None


def microseconds(text: str, kind: str) -> int:
    """Return the time since 1970 in microseconds.

    Args:
        text: as Postgres prints it: `2026-01-01 00:00:00.5+00`, `0044-03-15 BC`, `infinity`.
        kind: type of the ClickHouse column.

    Raises:
        PoisonError: the text is not a date or time, or the column cannot hold it.
    """
    value = None if text in {"infinity", "-infinity"} else _parsed(text)
    start, end = _range_us(bare(kind))
    if value is None or not start <= value < end:
        raise PoisonError(f"{text} is outside what {bare(kind)} holds")
    return value


def _parsed(text: str) -> int:
    match = _FORM.fullmatch(text)
    if match is None:
        raise PoisonError(f"{text!r} is not a date or time")
    part = {name: int(match[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second")}
    year = 1 - part["year"] if match["bc"] else part["year"]
    possible = 1 <= part["month"] <= _LAST_MONTH and 1 <= part["day"] <= _days_in(year, part["month"])
    if not possible or part["hour"] > _LAST_HOUR or max(part["minute"], part["second"]) > _LAST_MINUTE:
        raise PoisonError(f"{text!r} is not a date or time")
    seconds = _days(year, part["month"], part["day"]) * 86_400
    seconds += part["hour"] * 3600 + part["minute"] * 60 + part["second"] - _offset_s(match["zone"])
    return seconds * _SECOND_US + int((match["fraction"] or "").ljust(6, "0"))


def _days(year: int, month: int, day: int) -> int:
    """Return days since 1970 in the proleptic Gregorian calendar; the year before 1 is 0."""
    # If years begin in March, the leap day is the last day of a year.
    year, month = (year, month - 3) if month > _FEBRUARY else (year - 1, month + 9)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719_469


def _days_in(year: int, month: int) -> int:
    if month == _FEBRUARY:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 31 if month in _MONTHS_31 else 30


def _offset_s(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "").ljust(6, "0")
    seconds = int(digits[:2]) * 3600 + int(digits[2:4]) * 60 + int(digits[4:])
    return -seconds if zone[0] == "-" else seconds


def _range_us(kind: str) -> tuple[int, int]:
    match = _KIND.match(kind)
    name = match[1] if match else ""
    if name == "DateTime":
        return 0, _END_DATETIME_US
    start, end = _RANGES_DAYS[name]
    if name == "DateTime64" and match is not None and match[2] == str(_NANOSECONDS):
        return start * _DAY_US, _END_NANOSECONDS_US
    return start * _DAY_US, end * _DAY_US

"""Bounds of range partitions as Postgres prints them -> the step between them, and the partitions that come next.

Pure. A step is a number of ids, a length of time, or a number of whole months; if the bounds have no common step, the
result is None.

Source: https://www.postgresql.org/docs/current/sql-createtable.html#SQL-CREATETABLE-PARTITION
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Bound: TypeAlias = int | datetime
Step: TypeAlias = "int | timedelta | Months"

_RANGE = re.compile(r"FOR VALUES FROM \('?([^',]+)'?\) TO \('?([^',]+)'?\)")
_MONTHS = 12
# Postgres cuts longer names off.
_LONGEST_NAME_BYTES = 63


@dataclass(frozen=True, slots=True)
class Months:
    """A step of whole calendar months."""

    count: int


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of one partition, the upper one excluded; None if a bound is open, or of a type that is not supported."""

    lower: Bound | None
    upper: Bound | None


def parse(text: str) -> Range | None:
    """Read `FOR VALUES FROM (...) TO (...)`; None for any other partition, the default one among them."""
    match = _RANGE.fullmatch(text)
    return None if match is None else Range(_bound(match[1]), _bound(match[2]))


def _bound(text: str) -> Bound | None:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        # Postgres prints no minutes of the zone, and the session's zone is UTC.
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def step_of(ranges: Sequence[Range]) -> Step | None:
    """Return the step of the last two or three partitions, if they are adjacent and equally long."""
    ordered = sorted((one for one in ranges if one.upper is not None), key=lambda one: _key(one.upper))[-3:]
    if len(ordered) < 2 or any(one.lower is None for one in ordered):  # noqa: PLR2004 - one range has no step
        return None
    if any(left.upper != right.lower for left, right in pairwise(ordered)):
        return None
    steps = {_distance(one) for one in ordered}
    return steps.pop() if len(steps) == 1 else None


def following(last: Bound, step: Step) -> Iterator[Range]:
    """Yield the ranges after `last`, without end."""
    while True:
        upper = _add(last, step)
        yield Range(last, upper)
        last = upper


def name(table: str, lower: Bound) -> str:
    """Return a name for the partition that begins at `lower`: the table's, shortened if it is long, and the bound."""
    end = f"_from_{lower}" if isinstance(lower, int) else _spelled(lower.astimezone(UTC))
    return table.encode()[: _LONGEST_NAME_BYTES - len(end)].decode(errors="ignore") + end


def _spelled(when: datetime) -> str:
    midnight = (when.hour, when.minute, when.second, when.microsecond) == (0, 0, 0, 0)
    return f"_{when:%Y%m%d}" if midnight else f"_{when:%Y%m%d_%H%M%S}"


def _key(bound: Bound | None) -> float:
    return bound.timestamp() if isinstance(bound, datetime) else float(bound or 0)


def _distance(one: Range) -> Step | None:
    match one:
        case Range(int(lower), int(upper)):
            return upper - lower
        case Range(datetime() as lower, datetime() as upper):
            months = (upper.year - lower.year) * _MONTHS + upper.month - lower.month
            whole = lower.day == 1 and _add(lower, Months(months)) == upper if months else False
            return Months(months) if whole else upper - lower
        case _:
            return None


def _add(bound: Bound, step: Step) -> Bound:
    match bound, step:
        case int(), int():
            return bound + step
        case datetime(), Months(count):
            years, month = divmod(bound.month - 1 + count, _MONTHS)
            return bound.replace(year=bound.year + years, month=month + 1)
        case datetime(), timedelta():
            return bound + step
        case _:
            raise TypeError(f"{bound!r} has no step {step!r}")

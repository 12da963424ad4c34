"""Rows of the outbox -> those that ClickHouse has.

Edge: ClickHouse. The proof is the row itself: its id and time in the event table, or its id among the dead letters. The
slot's confirmed position is not enough, since rows can be deleted in ClickHouse. The id alone is not enough, since a
sequence can be restarted.

Source: https://clickhouse.com/docs/sql-reference/operators/in
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox

# A table that a user has created may store whole seconds only.
_TOLERANCE_S = 1.0
# From 1900 up to 2300, in seconds since 1970: a row at another time is among the dead letters.
_FIRST_S, _END_S = -2_208_988_800, 10_413_792_000
# If fewer than one in four ids of a range are wanted, the query lists them. ClickHouse limits a statement's length.
_DENSE = 4
_IDS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row of the outbox: its id, its time in seconds since 1970 (or infinite), and that as Postgres prints it.

    `is_old` tells whether it is older than the cutoff; the time is None if it is NULL.
    """

    id: int
    at_s: float | None
    printed: str | None
    is_old: bool


def proven(clickhouse: ClickHouse, outbox: Outbox, rows: Sequence[OutboxRow]) -> set[OutboxRow]:
    """Return those of the rows that ClickHouse has.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found = _stored(clickhouse, outbox, [row for row in rows if row.at_s is not None and _FIRST_S <= row.at_s < _END_S])
    lacking = [row for row in rows if row not in found]
    if lacking:
        aside = _set_aside(clickhouse, outbox, [row.id for row in lacking])
        found |= {row for row in lacking if row.id in aside}
    return found


def _stored(clickhouse: ClickHouse, outbox: Outbox, rows: Sequence[OutboxRow]) -> set[OutboxRow]:
    if not rows:
        return set()
    times = [row.at_s for row in rows if row.at_s is not None]
    bounds = {
        "source": outbox.settings.source,
        "from_us": math.floor((min(times) - _TOLERANCE_S) * 1e6),
        "to_us": math.ceil((max(times) + _TOLERANCE_S) * 1e6),
    }
    held: dict[int, list[float]] = {}
    for condition in _conditions([row.id for row in rows]):
        text = query("ids_stored", table=outbox.clickhouse_table, ids=f"id {condition}")
        for number, at_s in clickhouse.rows(text, parameters=bounds):
            held.setdefault(int(number), []).append(float(at_s))
    return {row for row in rows if any(abs(at_s - (row.at_s or 0)) <= _TOLERANCE_S for at_s in held.get(row.id, ()))}


def _set_aside(clickhouse: ClickHouse, outbox: Outbox, ids: Collection[int]) -> set[int]:
    found: set[int] = set()
    for condition in _conditions(ids):
        text = query("ids_set_aside", dead_letters=outbox.dead_letters_table, ids=f"id {condition}")
        found |= {int(number) for (number,) in clickhouse.rows(text, parameters={"source": outbox.settings.source})}
    return found


def _conditions(ids: Collection[int]) -> Iterator[str]:
    ordered = sorted(ids)
    first, last = ordered[0], ordered[-1]
    if last - first < _DENSE * len(ordered):
        yield f"BETWEEN {first:d} AND {last:d}"
        return
    for start in range(0, len(ordered), _IDS_AT_ONCE):
        yield f"IN ({', '.join(map(str, ordered[start : start + _IDS_AT_ONCE]))})"

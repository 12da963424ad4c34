"""Rows of the outbox -> those that ClickHouse has.

Edge: ClickHouse. The proof is the row itself: its id and time in the event table, or among the dead letters. The slot's
confirmed position is not enough, since rows can be deleted in ClickHouse. The id alone is not enough, since a sequence
can be restarted.

Source: https://clickhouse.com/docs/sql-reference/operators/in
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.cdc_reader.outbox.event_identity import unit_us
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox

# A table that a user has created may store whole seconds only.
_COARSEST_US = 1_000_000
# From 1900 up to 2300, in microseconds since 1970: a row at another time is among the dead letters.
_FIRST_US, _END_US = -2_208_988_800_000_000, 10_413_792_000_000_000
# If fewer than one in four ids of a range are wanted, the query lists them. ClickHouse limits a statement's length.
_DENSE = 4
_IDS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row of the outbox: its id, its time in microseconds since 1970, and that as Postgres prints it.

    `is_old` tells whether it is older than the cutoff; the time is None if it is NULL or infinite.
    """

    id: int
    at_us: int | None
    printed: str | None
    is_old: bool

    @property
    def fits(self) -> bool:
        """Whether ClickHouse can hold the time."""
        return self.at_us is not None and _FIRST_US <= self.at_us < _END_US


def proven(clickhouse: ClickHouse, outbox: Outbox, rows: Sequence[OutboxRow]) -> set[OutboxRow]:
    """Return those of the rows that ClickHouse has.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found = _stored(clickhouse, outbox, [row for row in rows if row.fits])
    lacking = [row for row in rows if row not in found]
    return found | _set_aside(clickhouse, outbox, lacking) if lacking else found


def _stored(clickhouse: ClickHouse, outbox: Outbox, rows: Sequence[OutboxRow]) -> set[OutboxRow]:
    if not rows:
        return set()
    times = [row.at_us for row in rows if row.at_us is not None]
    bounds = {
        "source": outbox.settings.source,
        "from_us": min(times) - _COARSEST_US,
        "to_us": max(times) + _COARSEST_US,
    }
    held: dict[int, list[int]] = {}
    unit = 1
    for condition in _conditions([row.id for row in rows]):
        text = query("ids_stored", table=outbox.clickhouse_table, ids=f"id {condition}")
        for number, at_us, kind in clickhouse.rows(text, parameters=bounds):
            held.setdefault(int(number), []).append(int(at_us))
            unit = unit_us(kind) or _COARSEST_US
    return {row for row in rows if any(abs(at_us - (row.at_us or 0)) < unit for at_us in held.get(row.id, ()))}


def _set_aside(clickhouse: ClickHouse, outbox: Outbox, rows: Collection[OutboxRow]) -> set[OutboxRow]:
    printed: dict[int, set[str]] = {}
    unknown: set[int] = set()
    for condition in _conditions([row.id for row in rows]):
        text = query("ids_set_aside", dead_letters=outbox.dead_letters_table, ids=f"id {condition}")
        for number, time, has_time in clickhouse.rows(text, parameters={"source": outbox.settings.source}):
            printed.setdefault(int(number), set()).add(time)
            if not has_time:
                unknown.add(int(number))
    # A time that ClickHouse cannot hold may have been corrected in the dead letter.
    return {
        row
        for row in rows
        if row.id in unknown or (row.id in printed and not row.fits) or (row.printed or "") in printed.get(row.id, ())
    }


def _conditions(ids: Collection[int]) -> Iterator[str]:
    ordered = sorted(ids)
    first, last = ordered[0], ordered[-1]
    if last - first < _DENSE * len(ordered):
        yield f"BETWEEN {first:d} AND {last:d}"
        return
    for start in range(0, len(ordered), _IDS_AT_ONCE):
        yield f"IN ({', '.join(map(str, ordered[start : start + _IDS_AT_ONCE]))})"

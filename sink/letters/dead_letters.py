"""Positions or a filter -> dead letters; positions -> letters deleted, discarded, or with a new reason.

Edge: ClickHouse. Letters are deleted and changed by mutations, and each function waits for its mutation. Letters are
few, so ClickHouse rewrites their parts quickly.

Source: https://clickhouse.com/docs/sql-reference/statements/alter/delete
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.sink.letters.restore import Letter
from outhaul.sink.position import Lsn, Position
from outhaul.sink.quoting import clickhouse_identifier, clickhouse_literal
from outhaul.sink.replicas import IN_SEQUENCE
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox

_AT_ONCE = 500
# Wait until all replicas have carried out a mutation.
_WAIT = {"mutations_sync": 2}
_IN_ORDER = "cdc_lsn, cdc_ordinal"
_NEWEST_FIRST = "cdc_ingested_at DESC, cdc_lsn DESC, cdc_ordinal DESC"


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects letters that were set aside from `since_us` on and before `until_us`, and whose reason contains `reason`.

    Both times are in microseconds since 1970. Discarded letters are selected only if `discarded` is set.
    """

    since_us: int | None = None
    until_us: int | None = None
    reason: str = ""
    discarded: bool = False

    def where(self) -> str:
        """Return the SQL condition."""
        ingested = "toUnixTimestamp64Micro(cdc_ingested_at)"
        parts = [
            "1" if self.discarded else "discarded_at IS NULL",
            f"{ingested} >= {self.since_us:d}" if self.since_us is not None else "",
            f"{ingested} < {self.until_us:d}" if self.until_us is not None else "",
            f"position(reason, {clickhouse_literal(self.reason)}) > 0" if self.reason else "",
        ]
        return " AND ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Summary:
    """How many letters a filter finds, how many of them are discarded, and the most frequent reasons."""

    total: int
    discarded: int
    by_reason: tuple[tuple[str, int], ...]


def summary(clickhouse: ClickHouse, outbox: Outbox, wanted: Filter, *, reasons: int) -> Summary:
    """Count the letters that a filter finds.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    table, source, where = outbox.dead_letters_table, {"source": outbox.settings.source}, wanted.where()
    counted = query("letters_total", dead_letters=table, where=where)
    total = clickhouse.rows(counted, parameters=source, settings=IN_SEQUENCE)[0]
    grouped = query("letters_by_reason", dead_letters=table, where=where, limit=reasons)
    groups = tuple((str(reason), int(count)) for reason, count in clickhouse.rows(grouped, parameters=source))
    return Summary(int(total[0]), int(total[1]), groups)


def newest(clickhouse: ClickHouse, outbox: Outbox, wanted: Filter, *, limit: int) -> list[Letter]:
    """Return the letters of a filter that were set aside last, newest first.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    return _letters(clickhouse, outbox, wanted.where(), _NEWEST_FIRST, limit)


def each(clickhouse: ClickHouse, outbox: Outbox, wanted: Filter) -> Iterator[Letter]:
    """Yield the letters that a filter finds, in order of position; 500 are read at a time.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    after = "1"
    while True:
        page = _letters(clickhouse, outbox, f"{wanted.where()} AND {after}", _IN_ORDER, _AT_ONCE)
        yield from page
        if len(page) < _AT_ONCE:
            return
        after = f"(cdc_lsn, cdc_ordinal) > {_tuple(page[-1].position)}"


def positions(clickhouse: ClickHouse, outbox: Outbox, wanted: Filter) -> list[Position]:
    """Return the positions of the letters that a filter finds, without reading their rows.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    text = query(
        "letters",
        dead_letters=outbox.dead_letters_table,
        row="''",
        where=wanted.where(),
        order=_IN_ORDER,
        limit=1 << 31,
    )
    rows = clickhouse.rows(text, parameters={"source": outbox.settings.source}, settings=IN_SEQUENCE)
    return [Position(Lsn(row[0]), int(row[1])) for row in rows]


def find(clickhouse: ClickHouse, outbox: Outbox, wanted: Collection[Position]) -> list[Letter]:
    """Return the letters at these positions, including discarded letters.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found = []
    for some in chunks(wanted):
        where = f"(cdc_lsn, cdc_ordinal) IN ({_tuples(some)})"
        found += _letters(clickhouse, outbox, where, _IN_ORDER, len(some))
    return found


def stored(clickhouse: ClickHouse, outbox: Outbox, wanted: Collection[Position]) -> set[Position]:
    """Return those of these positions that are in the event table.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found: set[Position] = set()
    for some in chunks(wanted):
        text = query("positions_stored", table=outbox.clickhouse_table, positions=_tuples(some))
        rows = clickhouse.rows(text, parameters={"source": outbox.settings.source}, settings=IN_SEQUENCE)
        found |= {Position(Lsn(lsn), int(ordinal)) for lsn, ordinal in rows}
    return found


def remove(clickhouse: ClickHouse, outbox: Outbox, wanted: Collection[Position]) -> None:
    """Delete the letters at these positions; the caller has checked that their events are stored.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    for some in chunks(wanted):
        clickhouse.command(f"{_alter(outbox)} DELETE WHERE {_at(outbox, some)}", settings=_WAIT)


def set_reason(clickhouse: ClickHouse, outbox: Outbox, wanted: Collection[Position], reason: str) -> None:
    """Replace the reason of these letters.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    for some in chunks(wanted):
        text = f"{_alter(outbox)} UPDATE reason = {clickhouse_literal(reason)} WHERE {_at(outbox, some)}"
        clickhouse.command(text, settings=_WAIT)


def discard(clickhouse: ClickHouse, outbox: Outbox, wanted: Collection[Position]) -> None:
    """Delete the values of these letters forever, except the id, and mark them as discarded.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    for some in chunks(wanted):
        text = query(
            "discard_letters",
            dead_letters=outbox.dead_letters_table,
            source=clickhouse_literal(outbox.settings.source),
            positions=_tuples(some),
        )
        clickhouse.command(text, settings=_WAIT)


def chunks(wanted: Collection[Position], size: int = _AT_ONCE) -> Iterator[Sequence[Position]]:
    """Yield the positions in order, at most `size` at a time."""
    ordered = sorted(wanted)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _letters(clickhouse: ClickHouse, outbox: Outbox, where: str, order: str, limit: int) -> list[Letter]:
    text = query("letters", dead_letters=outbox.dead_letters_table, row="row", where=where, order=order, limit=limit)
    rows = clickhouse.rows(text, parameters={"source": outbox.settings.source}, settings=IN_SEQUENCE)
    return [
        Letter(Position(Lsn(lsn), int(ordinal)), row, reason, int(committed), int(ingested), bool(discarded))
        for lsn, ordinal, row, reason, committed, ingested, discarded in rows
    ]


def _alter(outbox: Outbox) -> str:
    return f"ALTER TABLE {clickhouse_identifier(outbox.dead_letters_table)}"


def _at(outbox: Outbox, some: Collection[Position]) -> str:
    return f"cdc_source = {clickhouse_literal(outbox.settings.source)} AND (cdc_lsn, cdc_ordinal) IN ({_tuples(some)})"


def _tuples(some: Collection[Position]) -> str:
    return ", ".join(map(_tuple, some))


def _tuple(position: Position) -> str:
    return f"({int(position.lsn)}, {position.ordinal})"

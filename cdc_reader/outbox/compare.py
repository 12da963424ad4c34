"""The table's share and a table of ClickHouse -> where they differ, to the id.

Ids are taken in ranges; for each, both sides give a count and one number over all their rows. Ranges that agree cost
nothing more; of the others, both sides name their rows, and the comparison itself is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from outhaul.cdc_reader.outbox import fingerprint
from outhaul.cdc_reader.outbox.id_ranges import RANGE_IDS, Rows, Scope, StoredSide, TableSide
from outhaul.cdc_reader.postgres.query import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outhaul.cdc_reader.capture.frame import Ints
    from outhaul.cdc_reader.outbox.snapshot import Line
    from outhaul.cdc_reader.outbox.table_shape import Shape
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox

# ClickHouse reads all its ids once for each so many ranges, so these are many; both sides answer within seconds.
_STRIDE_RANGES = 64
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Compared:
    """A range of ids, `first` to `last` inclusive, and how both sides differ in it.

    `rows` counts the table's share in it, `aside` those of them that are dead letters. Each of the arrays has ids,
    ascending: of rows that only Postgres has, that only ClickHouse has, whose contents differ, that are stored more
    than once.
    """

    first: int
    last: int
    rows: int
    missing: Ints = field(default_factory=lambda: _NONE)
    extra: Ints = field(default_factory=lambda: _NONE)
    differing: Ints = field(default_factory=lambda: _NONE)
    repeated: Ints = field(default_factory=lambda: _NONE)
    aside: int = 0


def compare(first: int, last: int, theirs: Rows, ours: Rows, letters: Ints) -> Compared:
    """Compare the rows of one range; `letters` are ids of dead letters."""
    stored, at, copies = np.unique(ours.ids, return_index=True, return_counts=True)
    lacking = np.setdiff1d(theirs.ids, stored, assume_unique=True)
    missing = np.setdiff1d(lacking, letters, assume_unique=True)
    both, of_theirs, of_ours = np.intersect1d(theirs.ids, stored, assume_unique=True, return_indices=True)
    place = at[of_ours]
    differs = np.where(
        theirs.timeless[of_theirs],
        theirs.rest[of_theirs] != ours.rest[place],
        theirs.whole[of_theirs] != ours.whole[place],
    )
    return Compared(
        first,
        last,
        len(theirs.ids),
        missing=missing,
        extra=np.setdiff1d(stored, theirs.ids, assume_unique=True),
        differing=both[differs],
        repeated=stored[copies > 1],
        aside=len(lacking) - len(missing),
    )


class Comparison:
    """Compares one share with one table."""

    def __init__(
        self, line: Line, shape: Shape, clickhouse: ClickHouse, outbox: Outbox, scope: Scope, table: str = ""
    ) -> None:
        """Ask what both sides have in common; `table` is event_log where none is named.

        `not_compared` are columns whose contents the two cannot spell alike, or that only the outbox has.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        self._line = line
        self._ours = StoredSide(clickhouse, outbox, shape, scope, table or outbox.clickhouse_table)
        self._theirs = TableSide(shape, scope, self._ours.types)
        self._letters = self._ours.letters()
        common = {column.name for column in fingerprint.compared(shape, self._ours.types)}
        self.not_compared = [column.name for column in shape.columns if scope.deep and column.name not in common]

    def intervals(self, scope: Scope) -> tuple[tuple[int, int], ...]:
        """Return the first and last ids to compare: those of the scope, or all; none where the share has no rows.

        What is stored and older than all of the table was pruned from it, and is no surplus; what is newer is.

        Raises:
            PipelineError: a server refuses or does not answer.
        """
        with self._line.look() as conn:
            bounds = self._theirs.bounds(conn)
        if bounds is None:
            return ()
        least, last = bounds[0], max(bounds[1], self._ours.last_id())
        wanted = [(max(first, least), min(end, last)) for first, end in scope.intervals or ((least, last),)]
        return tuple((first, end) for first, end in wanted if first <= end)

    def ranges(self, intervals: Iterable[tuple[int, int]]) -> Iterator[Compared]:
        """Compare the ids of some intervals, in order; ranges without rows are left out.

        Raises:
            PipelineError: a server refuses or does not answer.
        """
        stride = RANGE_IDS * _STRIDE_RANGES
        with self._line.look() as conn:
            for first, last in intervals:
                for start in range(first // RANGE_IDS * RANGE_IDS, last + 1, stride):
                    yield from self._stride(conn, max(first, start), min(last, start + stride - 1))

    def _stride(self, conn: Connection, first: int, last: int) -> Iterator[Compared]:
        theirs, ours = self._theirs.sums(conn, first, last), self._ours.sums(first, last)
        for number in sorted(theirs.keys() | ours.keys()):
            start, end = max(first, number * RANGE_IDS), min(last, (number + 1) * RANGE_IDS - 1)
            rows = theirs.get(number, (0, 0))
            if rows == ours.get(number, (0, 0)):
                yield Compared(start, end, rows[0])
            else:
                yield self._look_closer(conn, start, end)

    def _look_closer(self, conn: Connection, first: int, last: int) -> Compared:
        found = compare(first, last, self._theirs.rows(conn, first, last), self._ours.rows(first, last), self._letters)
        if not len(found.extra):
            return found
        # What came by the stream after the line is no surplus.
        with connect(self._line.dsn) as now:
            there = self._theirs.those_there(now, found.extra)
        extra = np.setdiff1d(found.extra, there, assume_unique=True)
        return Compared(first, last, found.rows, found.missing, extra, found.differing, found.repeated, found.aside)

"""The table's share and a table of ClickHouse -> the ids of the rows in which they differ.

Edge: Postgres and ClickHouse. Ids are compared in ranges: for each, both sides compute a count and one checksum over
all rows. A range that agrees needs nothing more. For the others, both sides return the number of each row; `compare`
itself is pure. A range with too many rows for that on either side is divided first.

Source: docs/adr/0008-the-outbox-is-a-second-log.md
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from outhaul.cdc_reader.outbox import fingerprint
from outhaul.cdc_reader.outbox.id_ranges import RANGE_ROWS, RowFingerprints, Scope, StoredSide, TableSide
from outhaul.cdc_reader.postgres.query import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outhaul.cdc_reader.capture.frame import Ints
    from outhaul.cdc_reader.outbox.id_ranges import Interval
    from outhaul.cdc_reader.outbox.snapshot import Line
    from outhaul.cdc_reader.outbox.table_shape import Shape
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox

# Ranges in one query. ClickHouse reads all its ids for each query, so a query has many; it takes seconds at most.
_STRIDE_RANGES = 64
# A range of more rows on either side is divided before its rows are read: ClickHouse may have many where the outbox has
# few.
_MAX_ROWS = 4 * RANGE_ROWS
_NONE = np.empty(0, np.int64)
_NO_ROWS = (0, 0)


@dataclass(frozen=True, slots=True)
class Compared:
    """The differences in a range of ids, from `first` to `last` inclusive.

    `rows` is the number of rows of the table's share, `aside` the number of those that are dead letters. The arrays
    have ids, ascending: of rows that only Postgres has (`missing`), that only ClickHouse has (`extra`), whose contents
    differ, and that are stored more than once (`repeated`).
    """

    first: int
    last: int
    rows: int
    missing: Ints = field(default_factory=lambda: _NONE)
    extra: Ints = field(default_factory=lambda: _NONE)
    differing: Ints = field(default_factory=lambda: _NONE)
    repeated: Ints = field(default_factory=lambda: _NONE)
    aside: int = 0


def compare(
    first: int, last: int, outbox_rows: RowFingerprints, stored_rows: RowFingerprints, letters: Ints
) -> Compared:
    """Compare the rows of one range; `letters` are ids of dead letters."""
    stored, at, copies = np.unique(stored_rows.ids, return_index=True, return_counts=True)
    lacking = np.setdiff1d(outbox_rows.ids, stored, assume_unique=True)
    missing = np.setdiff1d(lacking, letters, assume_unique=True)
    both, in_outbox, in_stored = np.intersect1d(outbox_rows.ids, stored, assume_unique=True, return_indices=True)
    place = at[in_stored]
    differs = np.where(
        outbox_rows.timeless[in_outbox],
        outbox_rows.rest[in_outbox] != stored_rows.rest[place],
        outbox_rows.whole[in_outbox] != stored_rows.whole[place],
    )
    return Compared(
        first,
        last,
        len(outbox_rows.ids),
        missing=missing,
        extra=np.setdiff1d(stored, outbox_rows.ids, assume_unique=True),
        differing=both[differs],
        repeated=stored[copies > 1],
        aside=len(lacking) - len(missing),
    )


def divided(first: int, last: int, parts: int) -> list[Interval]:
    """Divide a range into at most `parts` parts of equal length."""
    length = -(-(last - first + 1) // parts)
    return [(start, min(last, start + length - 1)) for start in range(first, last + 1, length)]


class Comparison:
    """Compares one share with one table."""

    def __init__(
        self, line: Line, shape: Shape, clickhouse: ClickHouse, outbox: Outbox, scope: Scope, table: str = ""
    ) -> None:
        """Find the columns that can be compared; `table` is the outbox's ClickHouse table if it is not given.

        `not_compared` has the columns that ClickHouse lacks, or whose values have no common text form on both sides.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        self._line = line
        self._stored_side = StoredSide(clickhouse, outbox, shape, scope, table or outbox.clickhouse_table)
        self._outbox_side = TableSide(shape, scope, self._stored_side.types)
        self._letters = self._stored_side.letters()
        common = {column.name for column in fingerprint.compared(shape, self._stored_side.types)}
        self.not_compared = [column.name for column in shape.columns if scope.deep and column.name not in common]

    def intervals(self, scope: Scope) -> tuple[Interval, ...]:
        """Return the intervals of ids to compare: those of the scope, or all; empty if the share has no rows.

        Stored rows with ids below the table's first one were pruned from the table: they are not extra rows. Stored
        rows with ids above its last one are.

        Raises:
            PipelineError: a server refuses or does not answer.
        """
        with self._line.connect() as conn:
            bounds = self._outbox_side.bounds(conn)
        if bounds is None:
            return ()
        stored = self._stored_side.last_id()
        least, last = bounds[0], bounds[1] if stored is None else max(bounds[1], stored)
        wanted = [(max(first, least), min(end, last)) for first, end in scope.intervals or ((least, last),)]
        return tuple((first, end) for first, end in wanted if first <= end)

    def ranges(self, intervals: Iterable[Interval]) -> Iterator[Compared]:
        """Compare the intervals, in order, and yield the result of each range.

        Raises:
            PipelineError: a server refuses or does not answer.
        """
        with self._line.connect() as conn:
            for first, last in intervals:
                start = first
                while start <= last:
                    ranges = self._outbox_side.divide(conn, start, last, _STRIDE_RANGES)
                    yield from self._compare(conn, ranges)
                    start = ranges[-1][1] + 1

    def next_ranges(self, first: int, last: int, count: int) -> list[Interval]:
        """Return the next `count` ranges from `first` on, or as many as there are up to `last`.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        with self._line.connect() as conn:
            return self._outbox_side.divide(conn, first, last, count)

    def newest(self, count: int) -> int | None:
        """Return the first id of the outbox's last `count` ranges; None if it has fewer rows.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        with self._line.connect() as conn:
            return self._outbox_side.newest(conn, count)

    def _compare(self, conn: Connection, ranges: list[Interval]) -> Iterator[Compared]:
        of_outbox, of_stored = self._outbox_side.sums(conn, ranges), self._stored_side.sums(ranges)
        for first, last in ranges:
            rows, stored = of_outbox.get(first, _NO_ROWS), of_stored.get(first, _NO_ROWS)
            if rows == stored:
                yield Compared(first, last, rows[0])
            elif first == last or max(rows[0], stored[0]) <= _MAX_ROWS:
                yield self._compare_rows(conn, first, last)
            else:
                yield from self._compare(conn, divided(first, last, _STRIDE_RANGES))

    def _compare_rows(self, conn: Connection, first: int, last: int) -> Compared:
        found = compare(
            first, last, self._outbox_side.rows(conn, first, last), self._stored_side.rows(first, last), self._letters
        )
        found = replace(found, missing=self._stored_side.without_late(found.missing, first, last))
        if not len(found.extra):
            return found
        # A row that was committed after the line, and streamed, is not an extra row.
        with connect(self._line.dsn) as now:
            there = self._outbox_side.existing(now, found.extra)
        extra = np.setdiff1d(found.extra, there, assume_unique=True)
        return replace(found, extra=extra)

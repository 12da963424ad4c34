"""The table's share and a table of ClickHouse -> the ids of the rows in which they differ.

Edge: Postgres and ClickHouse. Rows are compared in ranges of ids: for each, both sides compute a count and one checksum
over all rows. A range that agrees needs nothing more. For the others, both sides return what identifies each row;
`compare` itself is pure. A range with too many rows for that on either side is divided first. A stored row whose id the
outbox has given to another event since is no difference.

Source: docs/adr/0008-the-outbox-is-a-second-log.md
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from outhaul.cdc_reader.outbox import fingerprint
from outhaul.cdc_reader.outbox.id_ranges import RANGE_ROWS, Letters, RowFingerprints, Scope, StoredSide, TableSide
from outhaul.cdc_reader.postgres.query import connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outhaul.cdc_reader.capture.frame import Bools, Ints
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
    differ, and that are stored more than once (`repeated`). `ambiguous` are the missing ids that several rows have.
    """

    first: int
    last: int
    rows: int
    missing: Ints = field(default_factory=lambda: _NONE)
    extra: Ints = field(default_factory=lambda: _NONE)
    differing: Ints = field(default_factory=lambda: _NONE)
    repeated: Ints = field(default_factory=lambda: _NONE)
    ambiguous: Ints = field(default_factory=lambda: _NONE)
    aside: int = 0


def compare(
    first: int, last: int, outbox_rows: RowFingerprints, stored_rows: RowFingerprints, letters: Letters
) -> Compared:
    """Compare the rows of one range."""
    place = find(outbox_rows, stored_rows)
    is_stored = place >= 0
    lacking = np.flatnonzero(~is_stored)
    aside = _letters_among(outbox_rows, lacking, letters)
    missing = np.unique(outbox_rows.ids[lacking[~aside]])
    both, place = np.flatnonzero(is_stored), place[is_stored]
    differs = np.where(
        outbox_rows.has_time[both],
        outbox_rows.whole[both] != stored_rows.whole[place],
        outbox_rows.rest[both] != stored_rows.rest[place],
    )
    ids, rows_of_id = np.unique(outbox_rows.ids, return_counts=True)
    return Compared(
        first,
        last,
        len(outbox_rows.ids),
        missing=missing,
        extra=np.setdiff1d(stored_rows.ids, outbox_rows.ids),
        differing=np.unique(outbox_rows.ids[both[differs]]),
        repeated=_repeated(outbox_rows, stored_rows),
        ambiguous=np.intersect1d(missing, ids[rows_of_id > 1], assume_unique=True),
        aside=int(aside.sum()),
    )


def find(outbox_rows: RowFingerprints, stored_rows: RowFingerprints) -> Ints:
    """Return for each row of the outbox the index of the stored row of the same event; -1 without one."""
    place = np.full(len(outbox_rows.ids), -1, np.int64)
    if not len(stored_rows.ids):
        return place
    for of_outbox, of_stored, rows in (
        (outbox_rows.times, stored_rows.times, np.flatnonzero(outbox_rows.has_time)),
        (outbox_rows.contents, stored_rows.contents, np.flatnonzero(~outbox_rows.has_time)),
    ):
        if len(rows):
            index = {key: number for number, key in enumerate(_keys(stored_rows.ids, of_stored))}
            keys = _keys(outbox_rows.ids[rows], of_outbox[rows])
            place[rows] = [index.get(key, -1) for key in keys]
    return place


def _keys(ids: Ints, numbers: Ints) -> Iterator[tuple[int, int]]:
    return zip(ids.tolist(), numbers.tolist(), strict=True)


def _letters_among(rows: RowFingerprints, places: Ints, letters: Letters) -> Bools:
    """Return a mask of the rows at these places that are dead letters."""
    aside = np.zeros(len(places), np.bool_)
    if letters.ids:
        of_places = zip(*(column[places].tolist() for column in (rows.ids, rows.times, rows.has_time)), strict=True)
        aside[:] = [letters.has(number, time, has_time=has_time) for number, time, has_time in of_places]
    return aside


def _repeated(outbox_rows: RowFingerprints, stored_rows: RowFingerprints) -> Ints:
    """Return the ids of events that are stored more often than the outbox has them."""
    ids, how_often = np.unique(stored_rows.ids, return_counts=True)
    twice = ids[how_often > 1]
    if not len(twice):
        return _NONE
    found: set[int] = set()
    stored, outbox = np.isin(stored_rows.ids, twice), np.isin(outbox_rows.ids, twice)
    timed, timeless = outbox & outbox_rows.has_time, outbox & ~outbox_rows.has_time
    for of_stored, rows, of_outbox, of_rows in (
        (stored_rows.times, stored & stored_rows.has_time, outbox_rows.times, timed),
        (stored_rows.contents, np.isin(stored_rows.ids, outbox_rows.ids[timeless]), outbox_rows.contents, timeless),
    ):
        copies = Counter(_keys(stored_rows.ids[rows], of_stored[rows]))
        wanted = Counter(_keys(outbox_rows.ids[of_rows], of_outbox[of_rows]))
        found |= {key[0] for key, count in copies.items() if count > max(1, wanted[key])}
    return np.array(sorted(found), np.int64)


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
        self._oldest: tuple[int | None] | None = None
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
        rows = self._outbox_side.rows(conn, first, last)
        contents = not bool(rows.has_time.all())
        stored = self._stored_side.rows(first, last, contents=contents)
        found = compare(first, last, rows, stored, self._letters)
        if len(found.missing) and self._stored_side.are_replicas:
            # Rows that another replica has are only late here.
            late = find(rows, self._stored_side.rows(first, last, contents=contents, anywhere=True)) >= 0
            found = replace(found, missing=np.setdiff1d(found.missing, rows.ids[late], assume_unique=True))
        if not len(found.extra):
            return found
        return replace(found, extra=self._extra(conn, found.extra, stored))

    def _extra(self, conn: Connection, ids: Ints, stored: RowFingerprints) -> Ints:
        """Return those of the ids that the outbox has never had, or has lost otherwise than by pruning."""
        # A row that was committed after the line, and streamed, is not an extra row.
        with connect(self._line.dsn) as now:
            extra = np.setdiff1d(ids, self._outbox_side.existing(now, ids), assume_unique=True)
        if len(extra) and self._oldest is None:
            self._oldest = (self._outbox_side.oldest(conn),)
        oldest = self._oldest[0] if self._oldest else None
        if not len(extra) or oldest is None:
            return extra
        # Rows that are older than all of the table were pruned, whatever their ids: a sequence may be restarted.
        young = stored.ids[stored.times >= oldest]
        return np.intersect1d(extra, young)

"""Ranges of ids -> on each side the count and checksum of the rows of each, or the number of every row.

Edge: Postgres, in the line's snapshot, and ClickHouse. Neither sends the contents of a row. A range is as long as it
takes for RANGE_ROWS rows of the outbox: ids may be far apart.

Source: docs/adr/0008-the-outbox-is-a-second-log.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from outhaul.cdc_reader.capture import arrow
from outhaul.cdc_reader.outbox import fingerprint
from outhaul.cdc_reader.outbox.event_identity import Identity
from outhaul.sink.quoting import bindable, clickhouse_identifier
from outhaul.sink.replicas import IN_SEQUENCE, find_servers
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from outhaul.cdc_reader.capture.frame import Bools, Ints
    from outhaul.cdc_reader.outbox.table_shape import Shape
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox

RANGE_ROWS = 1 << 16
_TIME = "event_date_time"
# ClickHouse's sums of 64-bit numbers wrap around, Postgres' do not.
_WRAP = 1 << 64

Interval: TypeAlias = tuple[int, int]
"""First and last id, both included."""

Sums: TypeAlias = dict[int, tuple[int, int]]
"""By the first id of the range: its count of rows, and the sum of their numbers modulo 2^64; none without rows."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is compared: `deep` compares contents, too, and not only ids; `until` is exclusive; `types` are event types.

    `intervals` are first and last ids, both included, in order; empty for all ids.
    """

    deep: bool = False
    since: datetime | None = None
    until: datetime | None = None
    types: tuple[str, ...] = ()
    intervals: tuple[Interval, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the scope has all rows between two ids."""
        return self.since is None and self.until is None and not self.types


@dataclass(frozen=True, slots=True)
class RowFingerprints:
    """One side's rows by id, ascending: what identifies each, and numbers for its contents (see `event_identity.py`).

    `times` are numbers of the rows' times. `has_time` marks the rows that are identified by their time; `contents`
    identifies the others. `whole` is a number for all compared columns, `rest` for all but the time. If only ids and
    times are compared, `whole` is 0, and `rest` a number for rows without a time alone.
    """

    ids: Ints
    times: Ints
    has_time: Bools
    contents: Ints
    whole: Ints
    rest: Ints


@dataclass(frozen=True, slots=True)
class Letters:
    """The dead letters of an outbox: all ids, those whose time is not known, and ids with numbers of their times."""

    ids: frozenset[int] = frozenset()
    without_time: frozenset[int] = frozenset()
    with_time: frozenset[tuple[int, int]] = frozenset()

    def has(self, number: int, time: int, *, has_time: bool) -> bool:
        """Tell whether a row is a dead letter; one whose time ClickHouse cannot hold may be corrected there."""
        return (number, time) in self.with_time or number in (self.without_time if has_time else self.ids)


class TableSide:
    """The rows of the outbox in Postgres."""

    def __init__(self, shape: Shape, scope: Scope, types: Mapping[str, str]) -> None:
        """Prepare the queries; `types` are the columns' types in ClickHouse, by name."""
        self._unbound_table = shape.quoted_table
        self._table = bindable(shape.quoted_table)
        self._condition = bindable(shape.condition)
        self._scope = scope
        self._identity = Identity.of(shape, types)
        self._number, self._whole = self._identity.postgres_number, "0::bigint"
        details = self._identity.postgres_row(self._identity.details)
        self._rest = f"CASE WHEN {self._identity.postgres_has_time} THEN 0 ELSE {details} END"
        if scope.deep:
            self._whole = bindable(fingerprint.postgres_row(fingerprint.compared(shape, types), shape.encoding))
            without_time = fingerprint.compared(shape, types, without=_TIME)
            self._rest = bindable(fingerprint.postgres_row(without_time, shape.encoding))
            self._number = self._whole

    def bounds(self, conn: Connection) -> tuple[int, int] | None:
        """Return the least and the greatest id; None without rows.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        row = conn.fetch(f"SELECT min(id) AS first, max(id) AS last FROM {self._unbound_table}")[0]
        return None if row["first"] is None else (row["first"], row["last"])

    def divide(self, conn: Connection, first: int, last: int, ranges: int) -> list[Interval]:
        """Return the next ranges from `first` on, in order: they leave no id out, and the last may end before `last`.

        Each has RANGE_ROWS rows of the table, but for rows with equal ids; the table's last range has fewer.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        rows = conn.fetch(
            f"SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM {self._table} "
            "WHERE id BETWEEN %s AND %s ORDER BY id LIMIT %s) AS counted "
            f"WHERE number %% {RANGE_ROWS} = 0 ORDER BY id",
            [first, last, RANGE_ROWS * ranges],
        )
        ends = list(dict.fromkeys(int(row["id"]) for row in rows))
        if len(rows) < ranges and ends[-1:] != [last]:
            ends.append(last)
        return list(zip([first, *(end + 1 for end in ends)], ends, strict=False))

    def newest(self, conn: Connection, ranges: int) -> int | None:
        """Return the first id of the last `ranges` ranges of the table; None if it has fewer rows.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        found = conn.fetch_value(
            f"SELECT id FROM {self._table} ORDER BY id DESC OFFSET %s LIMIT 1", [RANGE_ROWS * ranges - 1]
        )
        return None if found is None else int(found)

    def sums(self, conn: Connection, ranges: Sequence[Interval]) -> Sums:
        """Return count and checksum of adjacent ranges.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        firsts = [first for first, _ in ranges]
        rows = conn.fetch(
            f"SELECT width_bucket(id::bigint, %s::bigint[]) AS number, count(*) AS rows, sum({self._number}) AS sum "
            f"FROM {self._table} WHERE {self._where()} GROUP BY 1",
            [firsts, firsts[0], ranges[-1][1], *self._bound()],
        )
        return {firsts[row["number"] - 1]: (row["rows"], int(row["sum"]) % _WRAP) for row in rows}

    def rows(self, conn: Connection, first: int, last: int) -> RowFingerprints:
        """Return the rows with ids from `first` to `last`.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        one, timed = self._identity, self._identity.postgres_has_time
        found = conn.fetch_tuples(
            f"SELECT id::int8, CASE WHEN {timed} THEN {one.postgres_time} ELSE 0 END, ({timed})::int::int8, "
            f"CASE WHEN {timed} THEN 0 ELSE {one.postgres_row(one.contents)} END, {self._whole}, {self._rest} "
            f"FROM {self._table} WHERE {self._where()} ORDER BY id",
            [first, last, *self._bound()],
        )
        ids, times, has_time, contents, whole, rest = np.array(found, np.int64).reshape(-1, 6).T
        return RowFingerprints(ids, times, has_time.astype(np.bool_), contents, whole, rest)

    def oldest(self, conn: Connection) -> int | None:
        """Return the number of the earliest time; None if no row has one.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        one = self._identity
        found = (
            f"SELECT min({one.postgres_time}) FILTER (WHERE {one.postgres_has_time}) AS time FROM {self._unbound_table}"
        )
        least: int | None = conn.fetch_value(found)
        return least

    def existing(self, conn: Connection, ids: Ints) -> Ints:
        """Return the ids that the table has, as the connection sees it.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        rows = conn.fetch(f"SELECT id FROM {self._table} WHERE id = ANY(%s) ORDER BY id", [ids.tolist()])
        return np.array([row["id"] for row in rows], np.int64)

    def _where(self) -> str:
        since = f" AND {_TIME} >= %s" if self._scope.since else ""
        until = f" AND {_TIME} < %s" if self._scope.until else ""
        types = " AND event_type = ANY(%s)" if self._scope.types else ""
        return f"id BETWEEN %s AND %s{since}{until}{types} AND {self._condition}"

    def _bound(self) -> list[Any]:
        times = [time for time in (self._scope.since, self._scope.until) if time is not None]
        return [*times, *([list(self._scope.types)] if self._scope.types else [])]


class StoredSide:
    """The rows of one table in ClickHouse."""

    def __init__(self, clickhouse: ClickHouse, outbox: Outbox, shape: Shape, scope: Scope, table: str) -> None:
        """Read the table's columns, and prepare the queries.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        self._clickhouse = clickhouse
        self._outbox = outbox
        self._stored_condition = shape.stored_condition
        self._table = table
        self._scope = scope
        self._servers = find_servers(clickhouse, outbox.settings, table)
        columns = clickhouse.rows(
            "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}",
            parameters={"table": table},
        )
        self.types: dict[str, str] = {name: kind for name, kind in columns}  # noqa: C416 - says what the columns are
        self.identity = Identity.of(shape, self.types)
        self._number, self._whole = self.identity.clickhouse_number, "toInt64(0)"
        self._rest = self.identity.clickhouse_row(self.identity.details)
        if scope.deep:
            self._whole = fingerprint.clickhouse_row(fingerprint.compared(shape, self.types))
            self._rest = fingerprint.clickhouse_row(fingerprint.compared(shape, self.types, without=_TIME))
            self._number = self._whole

    @property
    def are_replicas(self) -> bool:
        """Whether other servers have replicas of the table."""
        return self._servers.are_replicas

    def sums(self, ranges: Sequence[Interval]) -> Sums:
        """Return count and checksum of adjacent ranges.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        firsts = [first for first, _ in ranges]
        text = query("compare_sums", table=self._table, number=self._number, those=self._those())
        bound = self._bound(firsts[0], ranges[-1][1]) | {"firsts": firsts}
        rows = self._clickhouse.rows(text, parameters=bound, settings=IN_SEQUENCE)
        return {first: (count, total % _WRAP) for first, count, total in rows}

    def rows(self, first: int, last: int, *, contents: bool, anywhere: bool = False) -> RowFingerprints:
        """Return the rows with ids from `first` to `last`; a row that is stored twice occurs twice.

        Args:
            first: least id.
            last: greatest id.
            contents: whether some rows may be identified by their contents.
            anywhere: return the rows that any replica has, a row of two replicas twice.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        text = query(
            "compare_rows",
            table=self._servers.everywhere(self._table) if anywhere else self._table,
            time=self.identity.clickhouse_time,
            contents=self.identity.clickhouse_row(self.identity.contents) if contents else "toInt64(0)",
            whole=self._whole,
            rest=self._rest if contents else "toInt64(0)",
            those=self._those(),
        )
        table = self._clickhouse.arrow(text, parameters=self._bound(first, last), settings=IN_SEQUENCE)
        names = ("number", "time", "contents", "whole", "rest")
        ids, times, contents_, whole, rest = (arrow.values(table.column(name), np.int64) for name in names)
        has_time = np.full(len(ids), self.identity.time is not None)
        return RowFingerprints(ids, times, has_time, contents_, whole, rest)

    def last_id(self) -> int | None:
        """Return the greatest stored id; None without rows.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        table = clickhouse_identifier(self._table)
        text = f"SELECT count(), max(id) FROM {table} WHERE cdc_source = {{source:String}} {self._of_shard()}"
        rows, last = self._clickhouse.rows(text, parameters={"source": self._outbox.settings.source})[0]
        return int(last) if rows else None

    def letters(self) -> Letters:
        """Return all dead letters.

        Raises:
            PipelineError: ClickHouse refuses or does not answer.
        """
        name = self._outbox.dead_letters_table
        servers = find_servers(self._clickhouse, self._outbox.settings, name)
        text = query("letter_ids", dead_letters=servers.everywhere(name))
        bound = {"source": self._outbox.settings.source}
        found = self._clickhouse.rows(text, parameters=bound, settings=IN_SEQUENCE)
        times = [(int(number), self.identity.time_of(printed)) for number, printed, has_time in found if has_time]
        return Letters(
            frozenset(int(number) for number, _, _ in found),
            frozenset(int(number) for number, _, has_time in found if not has_time),
            frozenset((number, time) for number, time in times if time is not None),
        )

    def _those(self) -> str:
        since = f"AND {_TIME} >= {{since:DateTime64(6, 'UTC')}}" if self._scope.since else ""
        until = f"AND {_TIME} < {{until:DateTime64(6, 'UTC')}}" if self._scope.until else ""
        types = "AND event_type IN {types:Array(String)}" if self._scope.types else ""
        return f"{since} {until} {types} {self._of_shard()}"

    def _of_shard(self) -> str:
        return f"AND {self._stored_condition}" if self._stored_condition else ""

    def _bound(self, first: int, last: int) -> dict[str, Any]:
        bound: dict[str, Any] = {"source": self._outbox.settings.source, "first": first, "last": last}
        times = {"since": self._scope.since, "until": self._scope.until}
        types = {"types": list(self._scope.types)} if self._scope.types else {}
        return bound | {name: time for name, time in times.items() if time is not None} | types

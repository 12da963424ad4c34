"""Materialized views on the event tables -> what each lacks, or has beyond what its query makes of the stored events.

Edge: ClickHouse, reads only. The query of a view runs over the whole event table, and its result is compared with the
view's target. While events are stored, a target has more than the query of a moment before. So the slot must have
passed a line: all events up to the line are in the table and in each view, and the target may lack none of them.

Source: docs/adr/0017-a-view-receives-each-event-once.md
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.outbox.refused_events import by_view
from outhaul.cdc_reader.outbox.view_query import Plan, plan
from outhaul.sink.errors import PipelineError, TransientError
from outhaul.sink.quoting import clickhouse_identifier, clickhouse_literal
from outhaul.sink.schema import tables
from outhaul.sink.sql import query
from outhaul.sink.view_check import is_accepted
from outhaul.sink.view_gaps import gaps
from outhaul.sink.views import views_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.position import Lsn
    from outhaul.sink.schema import Table
    from outhaul.sink.settings import Outbox, Settings
    from outhaul.sink.view_gaps import Gap
    from outhaul.sink.views import View

_AGGREGATES = "SELECT lower(name) FROM system.functions WHERE is_aggregate"
# A comparison with more groups than memory is done on disk.
_SETTINGS = {"max_bytes_before_external_group_by": 1 << 30, "log_comment": "outhaul:verify"}


@dataclass(frozen=True, slots=True)
class ViewDifference:
    """What a target has, compared with the query of its view.

    Attributes:
        views: names of the views that insert into the target, with commas between them.
        target: name of the target.
        compared: rows, or groups of an aggregation, that were compared.
        missing: how many of them the target lacks, or has too little of.
        extra: how many of them the target has and the query does not give, or has too much of.
        refused: events that the view has refused and still lacks; they are not in `missing`.
        reason: why the view refused the first of them.
        refused_ids: ids of the first few of them.
        unit: `rows` or `groups`.
        is_exact: whether no event was stored meanwhile. Otherwise a difference can be hidden by newer events.
        since: when the view was made, if the target has nothing older.
        left_out: columns of the target that were not compared.
        not_compared: why nothing was compared; empty if something was.
    """

    views: str
    target: str = ""
    compared: int = 0
    missing: int = 0
    extra: int = 0
    refused: int = 0
    reason: str = ""
    refused_ids: tuple[str, ...] = ()
    unit: str = "rows"
    is_exact: bool = True
    since: datetime | None = None
    left_out: tuple[str, ...] = ()
    not_compared: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether nothing differs, as far as it was compared."""
        return not (self.missing or self.extra or self.refused)


@dataclass(frozen=True, slots=True)
class _Counts:
    compared: int
    missing: int
    extra: int

    def into(self, found: ViewDifference) -> ViewDifference:
        return replace(found, compared=self.compared, missing=self.missing, extra=self.extra)


@dataclass(frozen=True, slots=True)
class _Side:
    """What is read of the source: all rows but those that a view has refused, or fewer."""

    outbox: Outbox
    gaps: tuple[Gap, ...] = ()
    conditions: tuple[str, ...] = field(default=())

    def only(self, condition: str) -> _Side:
        return _Side(self.outbox, self.gaps, (*self.conditions, condition))

    def settings(self, source: str) -> dict[str, Any]:
        conditions = (*self.conditions, *_not_refused(self.outbox.settings.source, self.gaps))
        if not conditions:
            return dict(_SETTINGS)
        text = clickhouse_literal(" AND ".join(conditions))
        return _SETTINGS | {"additional_table_filters": f"{{{clickhouse_literal(source)}: {text}}}"}


def compare_views(clickhouse: ClickHouse, outbox: Outbox, line: Lsn) -> Iterator[ViewDifference]:
    """Compare each target of the views on an event table with what their queries make of the stored events.

    Args:
        clickhouse: the server.
        outbox: the outbox whose event table has the views.
        line: the slot has passed it, so all events up to it are in the table and its views.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    views = [view for view in views_of(clickhouse, outbox.clickhouse_table) if not view.is_refreshable]
    if not views:
        return
    events = tables(clickhouse, [outbox.clickhouse_table])[outbox.clickhouse_table]
    aggregates = frozenset(str(row[0]) for row in clickhouse.rows(_AGGREGATES))
    comparison = _Comparison(clickhouse, outbox, events, line, aggregates, gaps(clickhouse, outbox))
    by_target = sorted(views, key=lambda view: (view.depth, str(view.target), view.name))
    for _, group in groupby(by_target, key=lambda view: (view.depth, str(view.target))):
        yield comparison.of(list(group))


class _Comparison:
    def __init__(
        self,
        clickhouse: ClickHouse,
        outbox: Outbox,
        events: Table,
        line: Lsn,
        aggregates: frozenset[str],
        refused: Sequence[Gap],
    ) -> None:
        self._clickhouse = clickhouse
        self._outbox = outbox
        self._events = events
        self._table = clickhouse_identifier(outbox.clickhouse_table)
        self._until_line = f"cdc_source = {clickhouse_literal(outbox.settings.source)} AND cdc_lsn <= {int(line)}"
        self._aggregates = aggregates
        self._refused = refused

    def of(self, views: list[View]) -> ViewDifference:
        """Compare the target of these views, which is the same for all of them."""
        names = ", ".join(str(view.name) for view in views)
        refused = [gap for gap in self._refused if gap.view in {str(view.name) for view in views}]
        found = ViewDifference(names, str(views[0].target or ""))
        if refused:
            (told, *_) = by_view(self._clickhouse, self._outbox, refused)
            rows = sum(gap.rows for gap in refused)
            found = replace(found, refused=rows, reason=told.reason, refused_ids=told.ids)
        try:
            return self._of(views, tuple(refused), found)
        except TransientError:
            raise
        except PipelineError as error:
            return replace(found, not_compared=f"ClickHouse refuses the comparison: {error.message}")

    def _of(self, views: list[View], refused: tuple[Gap, ...], found: ViewDifference) -> ViewDifference:
        if why := self._why_not(views, refused):
            return replace(found, not_compared=why)
        plans = [self._plan(view) for view in views]
        first = plans[0]
        if isinstance(first, str):
            return replace(found, not_compared=first)
        if any(one != first for one in plans):
            return replace(found, not_compared="its views return different columns")
        found = replace(found, unit="rows" if first.counts_rows else "groups", left_out=first.left_out)
        side = _Side(self._outbox, refused)
        before = self._stored()
        whole = self._differ(views, first, side)
        is_quiet = self._stored() == before and not before[1]
        if is_quiet:
            return self._whole_or_since(views, first, side, whole.into(found))
        if views[0].depth > 1:
            return replace(found, not_compared="events are being stored. Type `outhaul pause`, and compare again")
        if not first.is_growing:
            return replace(found, not_compared="events are being stored, and its sums can become smaller")
        return self._while_stored(views, first, side).into(replace(found, is_exact=False))

    def _why_not(self, views: list[View], refused: tuple[Gap, ...]) -> str:
        hidden = [view for view in views if view.target is None or view.table is None]
        if hidden:
            return "the view or its target does not exist, or this user may not see it"
        if any(is_accepted(view.name, self._outbox.settings) for view in views):
            return "OUTHAUL_VIEWS_NOT_EXACT names it"
        if len(views) > 1 and refused:
            return "several views insert into its target, and one of them has refused events"
        if " TTL " in self._events.definition:
            return f"{self._events.name} has a TTL"
        if views[0].depth > 1:
            return self._why_not_on_a_target(views)
        return ""

    def _why_not_on_a_target(self, views: list[View]) -> str:
        for view in views:
            source = tables_of(self._clickhouse, view)
            if source is None or source[0] not in {"MergeTree", "ReplicatedMergeTree", "SharedMergeTree", "Memory"}:
                return f"it reads {view.source}, which does not keep each row"
            if " TTL " in source[1]:
                return f"it reads {view.source}, which has a TTL"
        return ""

    def _plan(self, view: View) -> Plan | str:
        target, table = view.target, view.table
        if target is None or table is None:
            return "its target is not known"
        made = [str(row[0]) for row in self._clickhouse.rows(query("view_columns", as_select=view.as_select))]
        types = self._clickhouse.rows(
            query("view_column_types"), parameters={"database": target.database, "name": target.name}
        )
        return plan(view.as_select, made, table, {str(name): str(kind) for name, kind in types}, self._aggregates)

    def _stored(self) -> tuple[int, int]:
        """Return how many rows the event table has, and how many of them are past the line."""
        source = clickhouse_literal(self._outbox.settings.source)
        late = f"countIf(cdc_source = {source} AND NOT ({self._until_line}))"
        rows, past = self._clickhouse.rows(f"SELECT count(), {late} FROM {self._table}")[0]
        return int(rows), int(past)

    def _differ(self, views: list[View], way: Plan, side: _Side) -> _Counts:
        """Return how many groups there are, and what is missing and extra."""
        pairs = [(f"made_{number}", f"had_{number}") for number in range(len(way.sums))]
        statement = query(
            "compare_view",
            lacking=_beyond(pairs, counts_rows=way.counts_rows),
            beyond=_beyond([(had, made) for made, had in pairs], counts_rows=way.counts_rows),
            pairs=", ".join(
                f"ifNull(sumIf(sum_{number}, side = 1), 0) AS {made}, ifNull(sumIf(sum_{number}, side = 2), 0) AS {had}"
                for number, (made, had) in enumerate(pairs)
            ),
            keys="".join(f", {clickhouse_identifier(name)}" for name in way.keys),
            sums=_named(way.sums),
            made=self._made(views, way),
            target=_quoted_target(views),
        )
        rows = self._clickhouse.rows(statement, settings=side.settings(str(views[0].source)))
        groups, missing, extra = map(int, rows[0])
        return _Counts(groups, missing, extra)

    def _whole_or_since(self, views: list[View], way: Plan, side: _Side, found: ViewDifference) -> ViewDifference:
        """Return the difference, but for events that are older than a view that was made without its history."""
        made_at = self._made_at(views)
        if not found.missing or found.extra or not made_at:
            return found
        since = self._differ(views, way, side.only(_since(made_at)))
        if since.missing + since.extra >= found.missing:
            return found
        return since.into(replace(found, since=datetime.fromtimestamp(made_at, UTC)))

    def _while_stored(self, views: list[View], way: Plan, side: _Side) -> _Counts:
        """Compare what must be there with what is there, and what is there with what there is a moment later."""
        due = side.only(self._until_line)
        whole = self._differ(views, way, due)
        missing = whole.missing
        if missing and (made_at := self._made_at(views)):
            missing = self._differ(views, way, due.only(_since(made_at))).missing
        return _Counts(whole.compared, missing, self._beyond_all(views, way, side))

    def _beyond_all(self, views: list[View], way: Plan, side: _Side) -> int:
        """Return how much the target has beyond everything that is stored by the time when it was read."""
        if way.sums == ("toUInt64(1)",):
            return 0
        sums = _named(way.sums)
        had = self._clickhouse.rows(query("view_totals", sums=sums, rows=_quoted_target(views)), settings=_SETTINGS)[0]
        made = self._clickhouse.rows(
            query("view_totals", sums=sums, rows=f"({self._made(views, way)})"),
            settings=side.settings(str(views[0].source)),
        )[0]
        return max(0, *(int(one) - int(other) for one, other in zip(had, made, strict=True)))

    def _made(self, views: Iterable[View], way: Plan) -> str:
        """Return a query for what the views' queries return, in the types of the target."""
        kinds = dict(self._types(views, way))
        columns = ", ".join(
            f"CAST({clickhouse_identifier(name)} AS {kinds[name]}) AS {clickhouse_identifier(name)}"
            for name in way.columns
        )
        return " UNION ALL ".join(f"SELECT {columns or 1} FROM ({view.as_select})" for view in views)

    def _types(self, views: Iterable[View], way: Plan) -> Iterator[tuple[str, str]]:
        target = next(view.target for view in views if view.target)
        rows = self._clickhouse.rows(
            query("view_column_types"), parameters={"database": target.database, "name": target.name}
        )
        return ((str(name), str(kind)) for name, kind in rows if name in way.columns)

    def _made_at(self, views: list[View]) -> int:
        """Return when the views were made, in Unix seconds; 0 if that does not help: several views, or on a target."""
        if len(views) > 1 or views[0].depth > 1:
            return 0
        name = views[0].name
        found = self._clickhouse.rows(query("view_made_at"), parameters={"database": name.database, "name": name.name})
        return int(found[0][0])


def tables_of(clickhouse: ClickHouse, view: View) -> tuple[str, str] | None:
    """Return engine and definition of the table that a view reads; None if this user may not see it."""
    rows = clickhouse.rows(
        "SELECT engine, engine_full FROM system.tables WHERE database = {database:String} AND name = {name:String}",
        parameters={"database": view.source.database, "name": view.source.name},
    )
    return (str(rows[0][0]), str(rows[0][1])) if rows else None


def all_differences(clickhouse: ClickHouse, settings: Settings, line: Lsn) -> tuple[ViewDifference, ...]:
    """Compare the views on all event tables of a pipeline.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    return tuple(found for outbox in settings.outboxes() for found in compare_views(clickhouse, outbox, line))


def _beyond(pairs: Sequence[tuple[str, str]], *, counts_rows: bool) -> str:
    """Return an expression for how much the first of each pair is beyond the second."""
    if counts_rows:
        one, other = pairs[0]
        return f"if({one} > {other}, {one} - {other}, 0)"
    return f"({' OR '.join(f'{one} > {other}' for one, other in pairs)})"


def _named(sums: Sequence[str]) -> str:
    return ", ".join(f"{one} AS sum_{number}" for number, one in enumerate(sums))


def _quoted_target(views: Sequence[View]) -> str:
    return views[0].target.quoted if views[0].target else ""


def _since(made_at: int) -> str:
    return f"cdc_ingested_at >= fromUnixTimestamp({made_at})"


def _not_refused(source: str, refused: Iterable[Gap]) -> Iterator[str]:
    own = f"cdc_source = {clickhouse_literal(source)}"
    positions = [gap.position for gap in refused if gap.position != (0, 0)]
    batches = [gap.batch.number for gap in refused if gap.position == (0, 0)]
    if positions:
        yield f"NOT ({own} AND (cdc_lsn, cdc_ordinal) IN ({', '.join(map(str, positions))}))"
    if batches:
        yield f"NOT ({own} AND cdc_batch IN ({', '.join(map(str, batches))}))"

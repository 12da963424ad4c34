"""Name of a table -> the materialized views that get what is inserted into it, and their targets.

Edge: ClickHouse, reads only. ClickHouse pushes each insert to the views of a table, and what a view makes of it to the
views of the view's target, and so on. All of them are listed here, each once.

Source: https://clickhouse.com/docs/operations/system-tables/tables
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from outhaul.sink.quoting import clickhouse_identifier
from outhaul.sink.schema import Table
from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from outhaul.sink.clickhouse import ClickHouse

_NAME = r"(?:\w+|`(?:[^`\\]|\\.)*`|\"(?:[^\"\\]|\\.)*\")"
_QUALIFIED = rf"{_NAME}(?:\.{_NAME})?"
# How ClickHouse prints the beginning of a view's definition. A view with a table of its own has no TO here.
_DEFINITION = re.compile(
    rf"CREATE MATERIALIZED VIEW {_QUALIFIED}(?: UUID '[^']*')?"
    rf"(?:(?P<refresh> REFRESH(?= ))| TO (?P<target>{_QUALIFIED}))?(?= |$)"
)
_FIRST = re.compile(_NAME)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """The name of a table or view, and its database."""

    database: str
    name: str

    def __str__(self) -> str:
        return f"{self.database}.{self.name}"

    @property
    def quoted(self) -> str:
        """The name as it stands in a statement."""
        return f"{clickhouse_identifier(self.database)}.{clickhouse_identifier(self.name)}"


@dataclass(frozen=True, slots=True)
class View:
    """A materialized view that gets what is inserted into a table, and the table into which it inserts.

    Attributes:
        name: the view.
        source: the table that it reads: inserts into this table are pushed to it.
        target: the table into which it inserts: that of its TO, or the one that ClickHouse made for it. None if this
            user may not see the view, and for a refreshable view.
        table: the target, as ClickHouse describes it. None if the target does not exist, or this user may not see it.
        as_select: the query of the view; empty if this user may not see it.
        depth: 1 for a view on the table itself, 2 for a view on the target of such a view, and so on.
        is_refreshable: whether it runs by the clock. No insert is pushed to such a view.
        engine: `MaterializedView`, or the kind of another view that inserts are pushed to; empty if this user may not
            see the view.
    """

    name: TableName
    source: TableName
    target: TableName | None
    table: Table | None
    as_select: str
    depth: int
    is_refreshable: bool = False
    engine: str = "MaterializedView"

    @property
    def is_visible(self) -> bool:
        """Whether this user may see the view's definition."""
        return bool(self.engine)

    @property
    def token_window(self) -> int:
        """How many tokens of past inserts the target remembers; 0 if none, and if the target is not known."""
        return self.table.token_window if self.table else 0


def views_of(clickhouse: ClickHouse, table: str) -> tuple[View, ...]:
    """Return the views on a table of the current database, then the views on their targets, and so on; each once.

    Views that may be listed by a server but do not get inserts, the refreshable ones, are marked.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    found = _listed(clickhouse, table)
    # A view that was dropped between two questions looks like one that this user may not see.
    return found if all(view.is_visible for view in found) else _listed(clickhouse, table)


@dataclass(frozen=True, slots=True)
class _Described:
    table: Table
    uuid: str
    definition: str
    as_select: str
    views: tuple[TableName, ...]


def _listed(clickhouse: ClickHouse, table: str) -> tuple[View, ...]:
    known = _described(clickhouse, [TableName("", table)])
    found: dict[TableName, View] = {}
    sources, depth = list(known), 1
    while sources:
        edges = {view: source for source in sources for view in sorted(known[source].views) if view not in found}
        if not edges:
            break
        known |= _described(clickhouse, edges)
        targets = {name: _targets(name, known[name]) for name in edges.keys() & known.keys()}
        known |= _described(clickhouse, set(chain.from_iterable(targets.values())) - known.keys())
        new = [_view(name, source, depth, targets.get(name, ()), known) for name, source in edges.items()]
        found |= {view.name: view for view in new}
        sources = list(dict.fromkeys(view.target for view in new if view.target in known))
        depth += 1
    return tuple(found.values())


def _described(clickhouse: ClickHouse, names: Iterable[TableName]) -> dict[TableName, _Described]:
    """Return what ClickHouse says about the tables that exist; an empty name of a database is the current one."""
    wanted = set(names)
    if not wanted:
        return {}
    rows = clickhouse.rows(
        query("table_definitions"),
        parameters={
            "databases": sorted({name.database for name in wanted} - {""}),
            "tables": sorted({name.name for name in wanted}),
        },
    )
    found = {}
    for database, name, uuid, engine, engine_full, partition_key, sorting_key, definition, as_select, views in rows:
        if {TableName(database, name), TableName("", name)} & wanted:
            found[TableName(database, name)] = _Described(
                Table(name, engine, engine_full, partition_key, sorting_key),
                uuid,
                definition,
                as_select,
                tuple(TableName(*view) for view in views),
            )
    return found


def _view(
    name: TableName,
    source: TableName,
    depth: int,
    targets: tuple[TableName, ...],
    known: Mapping[TableName, _Described],
) -> View:
    if (described := known.get(name)) is None:
        return View(name, source, None, None, "", depth, engine="")
    target = next((one for one in targets if one in known), targets[0] if targets else None)
    table = known[target].table if target and target in known else None
    definition = _DEFINITION.match(described.definition)
    is_refreshable = bool(definition and definition["refresh"])
    return View(name, source, target, table, described.as_select, depth, is_refreshable, described.table.engine)


def _targets(name: TableName, view: _Described) -> tuple[TableName, ...]:
    """Return the table into which a view inserts; of a view without TO, the names that ClickHouse may have given it."""
    definition = _DEFINITION.match(view.definition)
    if definition is None or definition["refresh"]:
        return ()
    if definition["target"] is None:
        return TableName(name.database, f".inner_id.{view.uuid}"), TableName(name.database, f".inner.{name.name}")
    *database, table = names_in(definition["target"])
    return (TableName(database[0] if database else name.database, table),)


def names_in(qualified: str) -> Iterator[str]:
    """Return the parts of `database.table`, without the quotes in which ClickHouse prints them."""
    for part in _FIRST.findall(qualified):
        yield _ESCAPED.sub(r"\1", part[1:-1]) if part[0] in '`"' else part

"""A materialized view -> why it may not get each event exactly once, and what to type.

Edge: ClickHouse, reads only, by sink/views.py; `flaw_of` is pure. When a batch is sent again, ClickHouse leaves out of
each target what the target has already: by the token of the insert, if the target remembers tokens.

Source: https://clickhouse.com/docs/guides/developer/deduplicating-inserts-on-retries
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.schema import WINDOW_S, tables, window_statement
from outhaul.sink.views import views_of

if TYPE_CHECKING:
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.schema import Table
    from outhaul.sink.settings import Settings
    from outhaul.sink.views import TableName, View

_VARIABLE = "OUTHAUL_VIEWS_NOT_EXACT"
_VIEW = "MaterializedView"


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a view may not get each event exactly once."""

    view: TableName
    why: str
    todo: str

    def __str__(self) -> str:
        return f"materialized view {self.view} may not get each event exactly once: {self.why}. {self.todo}"


def flaw_of(view: View, events: Table) -> Flaw | None:
    """Return what is wrong with a view on an event table; None if nothing is.

    Its target must remember tokens for as long as the event table does: outhaul sends a batch again until the event
    table may have forgotten its token.
    """
    if view.is_refreshable:
        return None
    if not view.is_visible:
        return Flaw(view.name, "this user may not see its definition", _grant(view.name))
    if view.engine != _VIEW or view.target is None:
        return Flaw(view.name, f"it is a {view.engine}", _accept(view.name))
    if view.table is None:
        why = f"its target {view.target} does not exist, or this user may not see it"
        return Flaw(view.name, why, f"DROP VIEW {view.name.quoted}, create the target, or {_grant(view.target)}")
    if view.table.engine == "Null":
        return None
    if not view.table.engine.endswith("MergeTree"):
        why = f"its target {view.target} is a {view.table.engine}, which takes a batch again that is sent again"
        return Flaw(view.name, why, f"Let it insert into a MergeTree. Or accept that: {_accept(view.name)}")
    return _forgets(view.name, view.target, view.table, events)


def _forgets(view: TableName, target: TableName, table: Table, events: Table) -> Flaw | None:
    tokens, seconds = table.token_window, table.token_window_s
    needed, needed_s = max(1, events.token_window), events.token_window_s or WINDOW_S
    if tokens < needed:
        what = f"{tokens} insert tokens, and {events.name} {needed}"
    elif seconds is not None and seconds < needed_s:
        what = f"insert tokens for {seconds} s, and {events.name} for {needed_s} s or longer"
    else:
        return None
    why = f"its target {target} remembers {what}: a batch that is sent again may be in it twice"
    return Flaw(view, why, window_statement(table, target.database, tokens=needed))


def is_accepted(view: TableName, settings: Settings) -> bool:
    """Tell whether the operator has accepted that a view is not exact."""
    return not {view.name, str(view)}.isdisjoint(settings.views_not_exact)


def flaws(clickhouse: ClickHouse, settings: Settings) -> tuple[Flaw, ...]:
    """Return what is wrong with the views on the event tables, but for views that the operator has accepted.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    described = tables(clickhouse, [outbox.clickhouse_table for outbox in settings.outboxes()])
    found = (flaw_of(view, events) for events in described.values() for view in views_of(clickhouse, events.name))
    return tuple(dict.fromkeys(flaw for flaw in found if flaw and not is_accepted(flaw.view, settings)))


def check_views(clickhouse: ClickHouse, settings: Settings) -> None:
    """Check that each view on the event tables gets each event exactly once, or is accepted.

    Raises:
        FatalError: a view is neither exact nor accepted.
        PipelineError: ClickHouse refuses or does not answer.
    """
    first, *others = flaws(clickhouse, settings) or (None,)
    if first is None:
        return
    more = f" (and {len(others)} more views: `outhaul doctor` lists them)" if others else ""
    raise FatalError(
        f"ClickHouse's materialized view {first.view} may not get each event exactly once: {first.why}{more}",
        todo=first.todo if _VARIABLE in first.todo else f"{first.todo}. Or accept it: {_accept(first.view)}",
        exit_code=Exit.CLICKHOUSE_TABLE,
    )


def _grant(name: TableName) -> str:
    return f"GRANT SHOW TABLES ON {name.quoted} TO the user of OUTHAUL_CLICKHOUSE_URL"


def _accept(name: TableName) -> str:
    return f"set {_VARIABLE}={name}"

"""What views lack because they refused it -> which events these are, by view.

Edge: ClickHouse, reads only. The events are in the event table; outhaul fills the view when it takes them.

Source: docs/adr/0017-a-view-receives-each-event-once.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.sink.sql import query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox
    from outhaul.sink.view_gaps import Gap

# In place of a position: the view refused the whole batch.
_WHOLE = (0, 0)
_SHOWN = 10
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class RefusedEvents:
    """Events that a view has refused and lacks: how many, ids of the first few, and why it refused the first one."""

    view: str
    rows: int
    ids: tuple[str, ...]
    reason: str


def by_view(clickhouse: ClickHouse, outbox: Outbox, found: Iterable[Gap]) -> tuple[RefusedEvents, ...]:
    """Return these gaps by view.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    views: dict[str, list[Gap]] = {}
    for gap in found:
        views.setdefault(gap.view, []).append(gap)
    return tuple(_of(clickhouse, outbox, view, of_view) for view, of_view in views.items())


def _of(clickhouse: ClickHouse, outbox: Outbox, view: str, found: list[Gap]) -> RefusedEvents:
    positions = [gap.position for gap in found if gap.position != _WHOLE]
    batches = [gap.batch.number for gap in found if gap.position == _WHOLE]
    conditions = [f"cdc_batch IN ({', '.join(map(str, batches[:_SHOWN]))})"] if batches else []
    if positions:
        conditions.append(f"(cdc_lsn, cdc_ordinal) IN ({', '.join(map(str, positions[:_SHOWN]))})")
    rows = clickhouse.rows(
        query("ids_at", table=outbox.clickhouse_table, condition=" OR ".join(conditions)),
        parameters={"source": outbox.settings.source, "limit": _SHOWN},
    )
    ids = tuple(str(row[0]) for row in rows)
    reason = found[0].reason.splitlines()[0] if found[0].reason else "no reason is noted"
    return RefusedEvents(view, sum(gap.rows for gap in found), ids, reason[:_LONGEST])

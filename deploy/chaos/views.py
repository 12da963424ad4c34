"""The event table -> three materialized views on it, and in the end what each lacks and what it has twice.

Edge: ClickHouse. One view copies rows, one adds them up in a SummingMergeTree, one filters. Events are counted against
the event table, whose own count the run has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.clickhouse import ClickHouse

_WINDOW = "SETTINGS non_replicated_deduplication_window = 10000"
_STATEMENTS = (
    f"CREATE TABLE view_of_rows (id Int64, event_type String) ENGINE = MergeTree ORDER BY id {_WINDOW}",
    "CREATE MATERIALIZED VIEW to_view_of_rows TO view_of_rows AS SELECT id, event_type FROM event_log",
    f"CREATE TABLE view_of_sums (part UInt8, events UInt64) ENGINE = SummingMergeTree ORDER BY part {_WINDOW}",
    """CREATE MATERIALIZED VIEW to_view_of_sums TO view_of_sums AS
       SELECT toUInt8(id % 100) AS part, count() AS events FROM event_log GROUP BY part""",
    f"CREATE TABLE view_of_thirds (id Int64) ENGINE = MergeTree ORDER BY id {_WINDOW}",
    "CREATE MATERIALIZED VIEW to_view_of_thirds TO view_of_thirds AS SELECT id FROM event_log WHERE id % 3 = 0",
)
# Each returns, by key, how many events a view has and how many it must have.
_COUNTS = {
    "rows": """
        SELECT id AS key, countIf(is_view) AS had, countIf(NOT is_view) AS due
        FROM (SELECT id, true AS is_view FROM view_of_rows UNION ALL SELECT id, false FROM event_log) GROUP BY key""",
    "sums": """
        SELECT part AS key, sumIf(events, is_view) AS had, sumIf(events, NOT is_view) AS due
        FROM (
            SELECT part, events, true AS is_view FROM view_of_sums
            UNION ALL SELECT toUInt8(id % 100), toUInt64(1), false FROM event_log
        )
        GROUP BY key""",
    "thirds": """
        SELECT id AS key, countIf(is_view) AS had, countIf(NOT is_view) AS due
        FROM (
            SELECT id, true AS is_view FROM view_of_thirds
            UNION ALL SELECT id, false FROM event_log WHERE id % 3 = 0
        )
        GROUP BY key""",
}


@dataclass(frozen=True, slots=True)
class ViewCount:
    """How many events a view has of those that it must have, lacks, and has more than once."""

    view: str
    events: int
    missing: int
    twice: int


def make_views(clickhouse: ClickHouse) -> None:
    """Create the views and their targets.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    for statement in _STATEMENTS:
        clickhouse.command(statement)


def count_views(clickhouse: ClickHouse) -> tuple[ViewCount, ...]:
    """Count what each view has.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    return tuple(_counts(clickhouse))


def _counts(clickhouse: ClickHouse) -> Iterator[ViewCount]:
    for name, counted in _COUNTS.items():
        events, missing, twice = clickhouse.rows(
            "SELECT sum(least(had, due)), sum(if(due > had, due - had, 0)), sum(if(had > due, had - due, 0)) "  # noqa: S608 - of this file
            f"FROM ({counted})"
        )[0]
        yield ViewCount(name, int(events), int(missing), int(twice))

"""Counts after the demo -> its report, and two tables of query results.

Edge: queries Postgres and ClickHouse.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from outhaul.deploy.demo.count_events import count

if TYPE_CHECKING:
    from outhaul.deploy.demo.write_outbox import Written
    from outhaul.sink.clickhouse import ClickHouse

_BY_MONTH = """
    SELECT formatDateTime(event_date_time, '%b') AS month, count(), countIf(event_type = 'flight_cancelled'),
           countIf(event_type = 'flight_delayed'),
           round(avg(JSONExtract(event_context, 'dep_delay', 'Nullable(Int32)')), 1)
    FROM event_log WHERE toYear(event_date_time) = 2013
    GROUP BY month, toMonth(event_date_time) ORDER BY toMonth(event_date_time)"""

_BY_CARRIER = """
    SELECT JSONExtractString(event_context, 'carrier') AS carrier, count(),
           round(100 * countIf(event_type = 'flight_cancelled') / count(), 1),
           round(100 * countIf(event_type = 'flight_delayed') / count(), 1)
    FROM event_log GROUP BY carrier ORDER BY count() DESC LIMIT 8"""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of the demo; latencies are from a row's commit to the report that ClickHouse has stored it."""

    committed: int
    rolled_back: int
    stored: int
    missing: int
    duplicated: int
    rows_per_s: int
    p50_ms: float | None
    p99_ms: float | None

    @property
    def is_clean(self) -> bool:
        """Whether every committed event is stored exactly once."""
        return not self.missing and not self.duplicated and self.stored == self.committed

    def to_json(self) -> dict[str, Any]:
        """Return the report in JSON types."""
        return asdict(self)


def compare(
    dsn: str, clickhouse: ClickHouse, written: Written, seconds: float, p50_ms: float | None, p99_ms: float | None
) -> Report:
    """Compare the two tables by id, and return the report."""
    counted = count(dsn, clickhouse)
    return Report(
        committed=counted.committed,
        rolled_back=written.rolled_back,
        stored=counted.stored,
        missing=counted.missing,
        duplicated=counted.duplicated,
        rows_per_s=round(counted.committed / seconds),
        p50_ms=p50_ms,
        p99_ms=p99_ms,
    )


def tables(clickhouse: ClickHouse) -> list[Table]:
    """Return tables of the flights by month and by carrier, queried from ClickHouse."""
    months = Table(
        "month", "flights", "cancelled", "late", "mean delay (min)", title="2013 by month", title_justify="left"
    )
    for row in clickhouse.rows(_BY_MONTH):
        months.add_row(*map(str, row))
    carriers = Table("carrier", "flights", "cancelled %", "late %", title="By carrier", title_justify="left")
    for row in clickhouse.rows(_BY_CARRIER):
        carriers.add_row(*map(str, row))
    return [months, carriers]

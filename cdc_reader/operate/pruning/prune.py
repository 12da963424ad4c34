"""Age -> older rows that are proven to be stored are deleted from the outbox; a report names those that are not.

Edge: Postgres and ClickHouse, by `outbox_table.py`, `stored_rows.py` and `partitions.py`. Rows are deleted by
primary key, each batch in its own transaction, with a pause after it as long as it took. A crash at any point leaves
fewer rows and nothing else; the next pass continues.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.operate.pruning import partitions
from outhaul.cdc_reader.operate.pruning.stored_rows import proven
from outhaul.cdc_reader.postgres.errors import LockedError
from outhaul.sink.failpoint import reach
from outhaul.sink.retention import retention_of
from outhaul.sink.stopping import sleep_unless

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outhaul.cdc_reader.operate.pruning.outbox_table import OutboxTable
    from outhaul.cdc_reader.operate.pruning.stored_rows import OutboxRow
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox

BATCH = 5_000

# Ids and times grow together, nearly: after this many batches without an old row, only backdated rows are old.
_YOUNG_BATCHES = 10
_NAMED = 100
_LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What a pass is to do: the age of an old row, rows per batch, and number of future partitions."""

    older_than_s: float
    batch: int = BATCH
    dry_run: bool = False
    partitions_ahead: int = 0

    def cutoff(self, now: datetime) -> datetime:
        """Return the time before which a row is old."""
        try:
            return now - timedelta(seconds=self.older_than_s)
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class PruneReport:
    """What a pass did, or would do. `lacking` counts old rows that ClickHouse lacks; `lacking_ids` has some ids.

    `expired` counts those that the table's TTL may have removed: `ttl` is its text.
    """

    cutoff: str
    dry_run: bool
    examined: int = 0
    removed: int = 0
    lacking: int = 0
    lacking_ids: list[int] = field(default_factory=list)
    expired: int = 0
    ttl: str = ""
    locked: int = 0
    batches: int = 0
    longest_batch_s: float = 0.0
    partitions_dropped: list[str] = field(default_factory=list)
    partitions_created: list[str] = field(default_factory=list)
    is_complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}


def prune(
    table: OutboxTable, clickhouse: ClickHouse, outbox: Outbox, request: PruneRequest, stop: Callable[[], bool]
) -> PruneReport:
    """Make one pass.

    Args:
        table: the table, on a connection.
        clickhouse: has the proof.
        outbox: names of its tables.
        request: what to do.
        stop: called between two batches; if it returns true, the pass ends early.

    Raises:
        PipelineError: a server refuses or does not answer; all rows that were deleted until then were proven.
    """
    cutoff = request.cutoff(datetime.now(UTC))
    report = PruneReport(cutoff.isoformat(timespec="seconds"), request.dry_run)
    retention = retention_of(clickhouse, outbox.clickhouse_table)
    expired_s = float("-inf")
    if retention is not None:
        report.ttl = retention.rule
        expired_s = retention.before.timestamp() if retention.before else expired_s

    def prove(rows: Sequence[OutboxRow]) -> set[OutboxRow]:
        return proven(clickhouse, outbox, rows)

    tree = partitions.look(table)
    if tree is not None:
        report.partitions_created = partitions.create(table, tree, request.partitions_ahead, dry_run=request.dry_run)
        for part, rows in partitions.whole(table, tree, cutoff, prove, stop):
            if request.dry_run or partitions.drop(table, part, rows):
                report.partitions_dropped.append(part.name)
                report.removed += 0 if request.dry_run else rows.count
    elif request.partitions_ahead:
        partitions.refuse(table)
    _rows(table, report, request, cutoff, prove, expired_s, stop)
    return report


def _rows(
    table: OutboxTable,
    report: PruneReport,
    request: PruneRequest,
    cutoff: datetime,
    prove: Callable[[Sequence[OutboxRow]], set[OutboxRow]],
    expired_s: float,
    stop: Callable[[], bool],
) -> None:
    after: int | None = None
    young = 0
    while young < _YOUNG_BATCHES:
        if stop():
            report.is_complete = False
            return
        page = table.page(after, request.batch, cutoff)
        old = [row for row in page if row.is_old]
        young = 0 if old else young + 1
        report.examined += len(page)
        if old:
            found = prove(old)
            expired = {row for row in old if row not in found and row.at_us is not None and row.at_us < expired_s * 1e6}
            report.expired += len(expired)
            _batch(table, report, request, [row for row in old if row not in expired], found, stop)
        if len(page) < request.batch:
            return
        after = page[-1].id


def _batch(
    table: OutboxTable,
    report: PruneReport,
    request: PruneRequest,
    old: Sequence[OutboxRow],
    found: set[OutboxRow],
    stop: Callable[[], bool],
) -> None:
    lacking = [row.id for row in old if row not in found]
    report.lacking += len(lacking)
    report.lacking_ids += lacking[: _NAMED - len(report.lacking_ids)]
    gone = [row for row in old if row in found]
    if request.dry_run:
        report.removed += len(gone)
    if request.dry_run or not gone:
        return
    started = time.monotonic()
    try:
        removed = table.delete(gone)
    except LockedError:
        removed = 0
    took_s = time.monotonic() - started
    report.removed += removed
    report.locked += len(gone) - removed
    report.batches += 1
    report.longest_batch_s = max(report.longest_batch_s, round(took_s, 3))
    reach("prune.deleted")
    sleep_unless(stop, min(took_s, _LONGEST_PAUSE_S))

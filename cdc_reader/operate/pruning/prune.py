"""Age -> the outbox without the rows that are older and proven stored; and a report of the older ones that are not.

Edge: Postgres and ClickHouse, by `outbox_table.py`, `stored_rows.py` and `partitions.py`. Rows go some at a time, by
primary key, each batch in a transaction of its own; between two of them it rests as long as the last one took. Dying at
any point leaves fewer rows and nothing else, so the next pass goes on from there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.operate.pruning import partitions
from outhaul.cdc_reader.operate.pruning.outbox_table import BEFORE_ALL, LockedError, paused
from outhaul.cdc_reader.operate.pruning.stored_rows import proven
from outhaul.sink.failpoint import reach

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outhaul.cdc_reader.operate.pruning.outbox_table import OutboxTable
    from outhaul.cdc_reader.operate.pruning.stored_rows import OutboxRow
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox

BATCH = 5_000

# Ids and times grow together, nearly: behind so many batches without an old row there are none but backdated ones.
_YOUNG_BATCHES = 10
_NAMED = 100
_LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pass is to do: which age is old, how many rows a batch has, how many partitions to have in stock."""

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
class Report:
    """What a pass did, or would do. `lacking` counts old rows that ClickHouse lacks, `lacking_ids` names the first."""

    cutoff: str
    dry_run: bool
    examined: int = 0
    removed: int = 0
    lacking: int = 0
    lacking_ids: list[int] = field(default_factory=list)
    locked: int = 0
    batches: int = 0
    longest_batch_s: float = 0.0
    partitions_dropped: list[str] = field(default_factory=list)
    partitions_created: list[str] = field(default_factory=list)
    is_complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}


def prune(table: OutboxTable, clickhouse: ClickHouse, outbox: Outbox, wish: Wish, stop: Callable[[], bool]) -> Report:
    """Make one pass.

    Args:
        table: the table, on a connection.
        clickhouse: where the proof is.
        outbox: names of its tables.
        wish: what to do.
        stop: asked between two batches; the pass then ends early.

    Raises:
        PipelineError: a server refuses or does not answer; what was removed until then was proven.
    """
    cutoff = wish.cutoff(datetime.now(UTC))
    report = Report(cutoff.isoformat(timespec="seconds"), wish.dry_run)

    def prove(rows: Sequence[OutboxRow]) -> set[OutboxRow]:
        return proven(clickhouse, outbox, rows)

    tree = partitions.look(table)
    if tree is not None:
        report.partitions_created = partitions.create(table, tree, wish.partitions_ahead, dry_run=wish.dry_run)
        for part, rows in partitions.whole(table, tree, cutoff, prove, stop):
            if wish.dry_run or partitions.drop(table, part, rows):
                report.partitions_dropped.append(part.name)
                report.removed += 0 if wish.dry_run else rows.count
    elif wish.partitions_ahead:
        partitions.refuse(table)
    _rows(table, report, wish, cutoff, prove, stop)
    return report


def _rows(
    table: OutboxTable,
    report: Report,
    wish: Wish,
    cutoff: datetime,
    prove: Callable[[Sequence[OutboxRow]], set[OutboxRow]],
    stop: Callable[[], bool],
) -> None:
    after, young = BEFORE_ALL, 0
    while young < _YOUNG_BATCHES:
        if stop():
            report.is_complete = False
            return
        page = table.page(after, wish.batch, cutoff)
        old = [row for row in page if row.is_old]
        young = 0 if old else young + 1
        report.examined += len(page)
        if old:
            _batch(table, report, wish, old, prove(old), stop)
        if len(page) < wish.batch:
            return
        after = page[-1].id


def _batch(
    table: OutboxTable,
    report: Report,
    wish: Wish,
    old: Sequence[OutboxRow],
    found: set[OutboxRow],
    stop: Callable[[], bool],
) -> None:
    lacking = [row.id for row in old if row not in found]
    report.lacking += len(lacking)
    report.lacking_ids += lacking[: _NAMED - len(report.lacking_ids)]
    gone = [row for row in old if row in found]
    if wish.dry_run:
        report.removed += len(gone)
    if wish.dry_run or not gone:
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
    paused(min(took_s, _LONGEST_PAUSE_S), stop)

"""Outbox and event_log -> counts of events that ClickHouse lacks, from a few ranges of ids in each pass.

Edge: both servers, by the comparison of `outhaul verify`. Each pass compares the newest ids and the next few ranges of
older ids, so after some passes all are compared, and it begins again. A range with differences is compared in every
pass until it has none. Events that a TTL of ClickHouse may have removed are left out on both sides.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.exporter.metric_family import gauge
from outhaul.cdc_reader.outbox.compare import Comparison
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.cdc_reader.outbox.table_shape import describe
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.retention import retention_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from prometheus_client.metrics_core import Metric

    from outhaul.cdc_reader.outbox.compare import Compared
    from outhaul.cdc_reader.outbox.id_ranges import Interval
    from outhaul.cdc_reader.outbox.snapshot import Line
    from outhaul.sink.settings import Outbox, Settings

# How long a pass waits for the slot to pass all that was committed at its start, in seconds.
_WITHIN_S = 60.0
_TIMEOUT_S = 120
# Ranges of a pass: of the newest ids, of older ids, and at most this many that differed before.
_NEWEST, _OLDER, _DIFFERING = 2, 4, 100


class Audit:
    """Compares each outbox in turn.

    `busy_s` is how long the latest pass compared, in seconds; it does not include the wait for the slot.
    """

    def __init__(self, settings: Settings) -> None:
        """Begin with the newest ids and the oldest."""
        self.busy_s = 0.0
        self._settings = settings
        self._audits = [_OutboxAudit(outbox) for outbox in settings.outboxes()]

    def run_pass(self) -> list[Metric]:
        """Make one pass.

        Raises:
            PipelineError: a server refuses or does not answer, or the slot does not advance; nothing was compared.
        """
        with (
            ClickHouse.of(self._settings, timeout_s=_TIMEOUT_S) as clickhouse,
            behind_the_slot(self._settings.streams(), within_s=_WITHIN_S) as line,
        ):
            begun_at = time.monotonic()
            compared = sum(audit.run_pass(clickhouse, line) for audit in self._audits)
            self.busy_s = time.monotonic() - begun_at
        return self._families(compared)

    def _families(self, compared: int) -> list[Metric]:
        def total(kind: str) -> int:
            return sum(len(getattr(found, kind)) for audit in self._audits for found in audit.differing.values())

        return [
            gauge("audit_compared_events", "Events that the latest pass has compared", compared),
            gauge("audit_missing_events", "Events of the outbox that ClickHouse lacks", total("missing")),
            gauge("audit_extra_events", "Events in ClickHouse that the outbox lacks", total("extra")),
            gauge("audit_repeated_events", "Events that are stored more than once", total("repeated")),
            gauge(
                "audit_since_timestamp_seconds",
                "Time of the oldest event that is compared; only if a TTL of ClickHouse removes older ones",
                max((audit.since.timestamp() for audit in self._audits if audit.since), default=None),
            ),
        ]


class _OutboxAudit:
    """The differences of the latest passes over one outbox, by range, and the id where the next pass begins."""

    def __init__(self, outbox: Outbox) -> None:
        self.differing: dict[Interval, Compared] = {}
        self.since: datetime | None = None
        self._outbox = outbox
        self._next: int | None = None

    def run_pass(self, clickhouse: ClickHouse, line: Line) -> int:
        """Make one pass; return how many events were compared."""
        with line.connect() as conn:
            shape = describe(conn, self._outbox, self._outbox.settings.undivided)
        retention = retention_of(clickhouse, self._outbox.clickhouse_table)
        self.since = retention.before if retention else None
        scope = Scope(since=self.since)
        comparison = Comparison(line, shape, clickhouse, self._outbox, scope)
        found: list[Compared] = []
        for first, last in comparison.intervals(scope):
            found += comparison.ranges(self._choose(comparison, first, last))
        self._note(found)
        return sum(one.rows for one in found)

    def _choose(self, comparison: Comparison, first: int, last: int) -> list[Interval]:
        """Return the intervals of ids of the next pass, in order, and advance."""
        newest = comparison.newest(_NEWEST)
        fresh = first if newest is None else newest
        chosen = [(fresh, last)]
        if first < fresh:
            begin = self._next if self._next is not None and first < self._next < fresh else first
            chosen += comparison.next_ranges(begin, fresh - 1, _OLDER)
            self._next = chosen[-1][1] + 1
        differing = ((max(first, one), min(last, other)) for one, other in self.differing)
        return joined([*chosen, *(one for one in differing if one[0] <= one[1])])

    def _note(self, found: Iterable[Compared]) -> None:
        wrong = [one for one in found if len(one.missing) or len(one.extra) or len(one.repeated)]
        self.differing = {(one.first, one.last): one for one in wrong[:_DIFFERING]}


def joined(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the same ids in intervals that have none in common and do not adjoin, in order."""
    found: list[Interval] = []
    for first, last in sorted(intervals):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found

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
from outhaul.cdc_reader.outbox.id_ranges import RANGE_IDS, Scope
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.cdc_reader.outbox.table_shape import describe
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.retention import retention_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from prometheus_client.metrics_core import Metric

    from outhaul.cdc_reader.outbox.compare import Compared
    from outhaul.cdc_reader.outbox.snapshot import Line
    from outhaul.sink.settings import Outbox, Settings

# How long a pass waits for the slot to pass all that was committed at its start, in seconds.
_WITHIN_S = 60.0
_TIMEOUT_S = 120
# Ranges of a pass: newest ids, older ids, and at most this many ranges that differed before.
_NEWEST, _OLDER, _DIFFERING = 2, 4, 100

Interval = tuple[int, int]


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
    """The differences of the latest passes over one outbox, by number of the range, and where the next pass begins."""

    def __init__(self, outbox: Outbox) -> None:
        self.differing: dict[int, Compared] = {}
        self.since: datetime | None = None
        self._outbox = outbox
        self._next = 0

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
            found += comparison.ranges(self._choose(first, last))
        self._note(found)
        return sum(one.rows for one in found)

    def _choose(self, first: int, last: int) -> list[Interval]:
        """Return the ranges of ids of the next pass, in order, and advance."""
        least, newest = first // RANGE_IDS, last // RANGE_IDS
        fresh = range(max(least, newest - _NEWEST + 1), newest + 1)
        begin = self._next if least <= self._next < fresh.start else least
        older = range(begin, min(begin + _OLDER, fresh.start))
        self._next = older.stop
        differing = (number for number in self.differing if least <= number <= newest)
        return [_ids(first_, last_, first, last) for first_, last_ in runs({*fresh, *older, *differing})]

    def _note(self, found: Iterable[Compared]) -> None:
        # A range without rows on either side is not in `found`, so it leaves the list.
        wrong = [one for one in found if len(one.missing) or len(one.extra) or len(one.repeated)]
        self.differing = {one.first // RANGE_IDS: one for one in wrong[:_DIFFERING]}


def runs(numbers: Iterable[int]) -> list[Interval]:
    """Return first and last of each run of consecutive numbers; each becomes one query to each server."""
    found: list[Interval] = []
    for number in sorted(numbers):
        if found and found[-1][1] + 1 == number:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _ids(first_range: int, last_range: int, first: int, last: int) -> Interval:
    return max(first, first_range * RANGE_IDS), min(last, (last_range + 1) * RANGE_IDS - 1)

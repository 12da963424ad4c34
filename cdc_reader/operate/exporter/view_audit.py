"""Materialized views and the event tables -> how much each view's target lacks, or has beyond its query.

Edge: both servers, by the comparison of `outhaul verify --views`. A pass reads whole tables, so it is made only if it
is asked for, and rarely.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from outhaul.cdc_reader.operate.exporter.metric_family import gauge, gauges
from outhaul.cdc_reader.outbox.compare_views import all_differences
from outhaul.cdc_reader.outbox.heal import ASK_TIMEOUT_S
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.views import views_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client.metrics_core import Metric

    from outhaul.cdc_reader.outbox.compare_views import ViewDifference
    from outhaul.sink.settings import Settings

# How long a pass waits for the slot to pass all that was committed at its start, in seconds.
_WITHIN_S = 60.0


class ViewAudit:
    """Compares all views; `busy_s` is how long the latest pass took, in seconds, without the wait for the slot."""

    def __init__(self, settings: Settings) -> None:
        """Ask nothing yet."""
        self.busy_s = 0.0
        self._settings = settings

    def run_pass(self) -> list[Metric]:
        """Make one pass.

        Raises:
            PipelineError: a server refuses or does not answer, or the slot does not advance; nothing was compared.
        """
        with ClickHouse.of(self._settings, timeout_s=ASK_TIMEOUT_S) as clickhouse:
            if not any(views_of(clickhouse, outbox.clickhouse_table) for outbox in self._settings.outboxes()):
                return _families(())
            found = self._compare(clickhouse)
            if not all(one.is_fine for one in found):
                # A copy or a retried dead letter may have been between the table and its views.
                found = self._compare(clickhouse)
            return _families(found)

    def _compare(self, clickhouse: ClickHouse) -> Sequence[ViewDifference]:
        with behind_the_slot(self._settings.streams(), within_s=_WITHIN_S) as line:
            begun_at = time.monotonic()
            found = all_differences(clickhouse, self._settings, line.lsn)
            self.busy_s = time.monotonic() - begun_at
        return found


def _families(found: Sequence[ViewDifference]) -> list[Metric]:
    compared = [one for one in found if not one.not_compared]
    return [
        gauge("views_compared", "Targets of materialized views that the latest pass compared", len(compared)),
        gauge(
            "views_not_compared", "Targets of materialized views that cannot be compared", len(found) - len(compared)
        ),
        gauges(
            "view_missing",
            "Rows or groups of its query that the target of a materialized view lacks",
            "view",
            {one.views: one.missing for one in compared},
        ),
        gauges(
            "view_extra",
            "Rows or groups that the target of a materialized view has beyond its query",
            "view",
            {one.views: one.extra for one in compared},
        ),
    ]

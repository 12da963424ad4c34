"""Materialized views that are made while a reader runs -> a log line and a metric, if they are not exact.

Edge: ClickHouse, by sink/view_check.py. The check at the reader's start refuses such views; a later one stops nothing
until the next start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.sink.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.view_check import Flaw

log = structlog.get_logger("outhaul.reader")

_CHECK_S = 10.0


class ViewWatch:
    """Asks for flaws every ten seconds; each flaw is logged once while it lasts."""

    def __init__(self, ask: Callable[[], tuple[Flaw, ...]], clock: Callable[[], float]) -> None:
        """Look at the first call."""
        self._ask = ask
        self._clock = clock
        self._looked_at = float("-inf")
        self._known: frozenset[Flaw] = frozenset()

    def look_if_due(self) -> None:
        """Look, if ten seconds have passed since the last time; without an answer, what was found before stays.

        Raises:
            PipelineError: ClickHouse refuses.
        """
        if self._clock() - self._looked_at < _CHECK_S:
            return
        self._looked_at = self._clock()
        try:
            found = self._ask()
        except TransientError:
            # Other stages log the error, and the next look is soon.
            return
        metrics.VIEWS_NOT_EXACT.set(len(found))
        for flaw in found:
            if flaw not in self._known:
                log.warning("view_not_exact", view=str(flaw.view), reason=flaw.why, todo=flaw.todo)
        self._known = frozenset(found)

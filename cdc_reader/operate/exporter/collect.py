"""Looks, one thread each -> what was seen last, how long looking took, and whether it is still true.

Edge: threads and the clock. A server that does not answer has no figures, rather than old ones, and its `up` is 0; one
that keeps a look waiting for too long counts as one that does not answer.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from prometheus_client.registry import Collector

from outhaul.cdc_reader.operate.exporter.metric_family import counters, gauge, gauges
from outhaul.sink.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric

log = structlog.get_logger("outhaul.exporter")

# A look that takes longer than this beyond its turn is as good as none, in seconds.
_PATIENCE_S = 30.0


@dataclass(slots=True)
class Watch:
    """One thing to look at every `every_s` seconds, or after `rest_s()` seconds where that is longer.

    `up` is what its metric says of it, where it is a server; `families` are those of the last look that came to an end.
    """

    server: str
    look: Callable[[], list[Metric]]
    every_s: float
    up: str = ""
    rest_s: Callable[[], float] = float
    families: list[Metric] | None = None
    began_at: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    succeeded_at: float | None = None
    failures: int = 0
    has_looked: bool = False

    def run(self, over: threading.Event) -> None:
        """Look until all is over."""
        wait_s = 0.0
        while not over.wait(wait_s):
            self.began_at = time.monotonic()
            try:
                self.families = self.look()
                self.succeeded_at = time.time()
            except PipelineError as error:
                self.families = None
                self.failures += 1
                log.warning("look_failed", where=self.server, error=error, failures=self.failures)
            except Exception:
                # A defect of ours in one look must not end the others; it shows in the metric and here.
                self.families = None
                self.failures += 1
                log.exception("look_failed", where=self.server, failures=self.failures)
            self.has_looked = True
            self.seconds = time.monotonic() - self.began_at
            wait_s = max(self.every_s, self.rest_s())
            self.began_at = time.monotonic() + wait_s

    def seen(self, now: float) -> list[Metric]:
        """Return what holds at the clock's `now`: nothing where the last look failed, or has not come back."""
        return (self.families or []) if now - self.began_at <= _PATIENCE_S else []


class Watches(Collector):
    """All watches as one collector."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        """Start a thread for each."""
        self._watches = watches
        self.over = threading.Event()
        for watch in watches:
            threading.Thread(target=watch.run, args=(self.over,), name=f"outhaul-{watch.server}", daemon=True).start()

    def alive(self) -> str:
        """Return which look has not come back for long; nothing if all go on."""
        now = time.monotonic()
        stuck = [watch.server for watch in self._watches if now - watch.began_at > 10 * _PATIENCE_S]
        return f"no look has come back from: {', '.join(stuck)}" if stuck else ""

    def ready(self) -> str:
        """Return which look has not come to its first end yet; nothing if all have."""
        first = [watch.server for watch in self._watches if not watch.has_looked and watch.up]
        return f"not looked yet at: {', '.join(first)}" if first else ""

    def collect(self) -> Iterable[Metric]:
        """Yield all that holds now."""
        now = time.monotonic()
        for watch in self._watches:
            seen = watch.seen(now)
            if watch.up:
                yield gauge(f"{watch.server}_up", watch.up, bool(seen))
            yield from seen
        yield gauges(
            "exporter_look_seconds",
            "How long the latest look took",
            "server",
            {watch.server: watch.seconds for watch in self._watches},
        )
        yield gauges(
            "exporter_last_success_timestamp_seconds",
            "When a look last came to a good end",
            "server",
            {watch.server: watch.succeeded_at for watch in self._watches},
        )
        yield counters(
            "exporter_failures",
            "Looks that failed",
            "server",
            {watch.server: watch.failures for watch in self._watches},
        )

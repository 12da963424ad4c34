"""Polls, one thread each -> the latest metrics, how long the poll took, and whether it succeeded.

Edge: threads and the clock. A server that does not answer has no figures, rather than old ones, and its `up` is 0. A
poll that takes too long counts as failed.
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

# A poll that is this late counts as failed, in seconds.
_PATIENCE_S = 30.0


@dataclass(slots=True)
class Poll:
    """One poll, repeated after `every_s` or `rest_s()` seconds, whichever is longer.

    `up` is the help text of its `up` metric, empty if it has none; `families` are those of the latest finished poll.
    `failed` gets the error of each poll that fails.
    """

    server: str
    collect: Callable[[], list[Metric]]
    every_s: float
    up: str = ""
    rest_s: Callable[[], float] = float
    failed: Callable[[PipelineError], None] = lambda _: None
    families: list[Metric] | None = None
    began_at: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    succeeded_at: float | None = None
    failures: int = 0
    has_polled: bool = False

    def run(self, over: threading.Event) -> None:
        """Poll until `over` is set."""
        wait_s = 0.0
        while not over.wait(wait_s):
            self.began_at = time.monotonic()
            try:
                self.families = self.collect()
                self.succeeded_at = time.time()
            except PipelineError as error:
                self.families = None
                self.failures += 1
                log.warning("look_failed", where=self.server, error=error, failures=self.failures)
                self.failed(error)
            except Exception:
                # A bug in one poll must not end the others; the metric and this line report it.
                self.families = None
                self.failures += 1
                log.exception("look_failed", where=self.server, failures=self.failures)
            self.has_polled = True
            self.seconds = time.monotonic() - self.began_at
            wait_s = max(self.every_s, self.rest_s())
            self.began_at = time.monotonic() + wait_s

    def seen(self, now: float) -> list[Metric]:
        """Return the metrics at monotonic time `now`: none if the latest poll failed or is late."""
        return (self.families or []) if now - self.began_at <= _PATIENCE_S else []


class Polls(Collector):
    """All polls as one collector."""

    def __init__(self, polls: Sequence[Poll]) -> None:
        """Start a thread for each."""
        self._polls = polls
        self.over = threading.Event()
        for poll in polls:
            threading.Thread(target=poll.run, args=(self.over,), name=f"outhaul-{poll.server}", daemon=True).start()

    def alive(self) -> str:
        """Return which polls are stuck; "" if all return in time."""
        now = time.monotonic()
        stuck = [poll.server for poll in self._polls if now - poll.began_at > 10 * _PATIENCE_S]
        return f"polls that have not returned: {', '.join(stuck)}" if stuck else ""

    def ready(self) -> str:
        """Return which servers have not been polled once yet; "" if all have."""
        first = [poll.server for poll in self._polls if not poll.has_polled and poll.up]
        return f"not polled yet: {', '.join(first)}" if first else ""

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of all polls."""
        now = time.monotonic()
        for poll in self._polls:
            seen = poll.seen(now)
            if poll.up:
                yield gauge(f"{poll.server}_up", poll.up, bool(seen))
            yield from seen
        yield gauges(
            "exporter_look_seconds",
            "How long the latest poll took",
            "server",
            {poll.server: poll.seconds for poll in self._polls},
        )
        yield gauges(
            "exporter_last_success_timestamp_seconds",
            "When a poll last succeeded",
            "server",
            {poll.server: poll.succeeded_at for poll in self._polls},
        )
        yield counters(
            "exporter_failures",
            "Polls that failed",
            "server",
            {poll.server: poll.failures for poll in self._polls},
        )

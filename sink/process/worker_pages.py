"""Metric files of Celery's pool, state of the watchdog -> the HTTP pages that `outhaul worker` serves.

Edge: files and HTTP. It reads the directory into which the worker writes its metrics (sink/telemetry/multiprocess.py).
The watchdog serves the pages, since it outlives Celery's worker. Without a port in the settings, there is no directory
and no page.

Source: https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.telemetry.exposition import Health, expose
from outhaul.sink.telemetry.metrics import PREFIX
from outhaul.sink.telemetry.multiprocess import DIRECTORY, READY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

    from outhaul.sink.settings import Settings

# The watchdog checks its worker every two seconds. The end of a worker and the next start take less than this, in
# seconds.
_MAX_IDLE_S = 90.0


class WorkerPages:
    """State of the watchdog's worker, and the directory of the worker's metrics."""

    def __init__(self, settings: Settings) -> None:
        """Make the directory and serve the pages, if the settings have a port.

        Raises:
            FatalError: the port is taken, or there is no directory for temporary files.
        """
        registry = CollectorRegistry()
        self._up = Gauge(f"{PREFIX}up", "1 while Celery's worker runs", registry=registry)
        self._restarts = Counter(
            f"{PREFIX}restarts", "Workers that the watchdog had to start again", ["reason"], registry=registry
        )
        for reason in ("ended", "deaf"):
            self._restarts.labels(reason)
        self._checked_at = time.monotonic()
        self._directory = _directory() if settings.metrics_port else None
        if self._directory:
            pool = _PoolMetrics(self._directory.name)
            expose(settings, settings.source, "worker", (registry, pool, REGISTRY), Health(self._alive, self._ready))

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which Celery's worker writes its metrics to the directory."""
        return {DIRECTORY: self._directory.name} if self._directory else {}

    def starting(self) -> None:
        """Record that a worker has been started and is not ready yet."""
        self.checked()
        if self._directory:
            (Path(self._directory.name) / READY).unlink(missing_ok=True)
        self._up.set(1)

    def checked(self) -> None:
        """Record that the watchdog has checked its worker."""
        self._checked_at = time.monotonic()

    def ended(self, reason: str) -> None:
        """Record that the worker must be started again: it has `ended`, or is `deaf`."""
        self._up.set(0)
        self._restarts.labels(reason).inc()

    def close(self) -> None:
        """Remove the directory."""
        if self._directory:
            self._directory.cleanup()

    def _alive(self) -> str:
        idle_s = time.monotonic() - self._checked_at
        return f"the watchdog has not checked its worker for {idle_s:.0f} s" if idle_s > _MAX_IDLE_S else ""

    def _ready(self) -> str:
        ready = self._directory is not None and (Path(self._directory.name) / READY).exists()
        return self._alive() if ready else "Celery's worker does not take messages yet"


def _directory() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="outhaul-metrics-")
    except OSError as error:
        raise FatalError(
            f"the worker's metrics need a directory for temporary files: {error}",
            todo="Let TMPDIR name a directory that is writable, or unset OUTHAUL_METRICS_PORT",
            exit_code=Exit.SETTINGS,
        ) from error


class _PoolMetrics(Collector):
    """Metrics of all processes of the pool, including processes that have ended."""

    def __init__(self, directory: str) -> None:
        self._files = MultiProcessCollector(None, directory)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        # Modules that the tasks share with a reader may have created the reader's metrics, too. They are left out.
        found: Iterable[Metric] = self._files.collect()  # type: ignore[no-untyped-call]
        yield from (metric for metric in found if metric.name.startswith(PREFIX))

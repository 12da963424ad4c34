"""Metric files of Celery's pool, what the watchdog knows -> the pages that `outhaul worker` serves.

Edge: reads the directory that the worker writes its metrics to (sink/telemetry/multiprocess.py). The watchdog serves
the pages, since it outlives Celery's worker. Without a port nothing is kept or shown.

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

from outhaul.sink.telemetry.exposition import Health, expose
from outhaul.sink.telemetry.metrics import PREFIX
from outhaul.sink.telemetry.multiprocess import DIRECTORY, READY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

    from outhaul.sink.settings import Settings

# The watchdog looks every two seconds, and waits for a worker's end and the next start no longer than this, in seconds.
_STILL_S = 90.0


class WorkerPages:
    """What the watchdog knows of its worker, and the directory in which the worker counts."""

    def __init__(self, settings: Settings) -> None:
        """Make the directory and serve the pages, where the settings name a port.

        Raises:
            FatalError: the port is taken.
        """
        registry = CollectorRegistry()
        self._up = Gauge(f"{PREFIX}up", "1 while Celery's worker runs", registry=registry)
        self._restarts = Counter(
            f"{PREFIX}restarts", "Workers that the watchdog had to start again", ["reason"], registry=registry
        )
        for reason in ("ended", "deaf"):
            self._restarts.labels(reason)
        self._looked_at = time.monotonic()
        self._kept = tempfile.TemporaryDirectory(prefix="outhaul-metrics-") if settings.metrics_port else None
        if self._kept:
            pool = _OfPool(self._kept.name)
            expose(settings, settings.source, "worker", (registry, pool, REGISTRY), Health(self._alive, self._ready))

    @property
    def environment(self) -> dict[str, str]:
        """What Celery's worker needs in its environment to count here."""
        return {DIRECTORY: self._kept.name} if self._kept else {}

    def starting(self) -> None:
        """Note that a worker is started; it is not ready yet."""
        self.looked()
        if self._kept:
            (Path(self._kept.name) / READY).unlink(missing_ok=True)
        self._up.set(1)

    def looked(self) -> None:
        """Note that the watchdog has looked after its worker."""
        self._looked_at = time.monotonic()

    def ended(self, reason: str) -> None:
        """Note that the worker has to be started again: it has `ended`, or is `deaf`."""
        self._up.set(0)
        self._restarts.labels(reason).inc()

    def close(self) -> None:
        """Remove the directory."""
        if self._kept:
            self._kept.cleanup()

    def _alive(self) -> str:
        still_s = time.monotonic() - self._looked_at
        return f"the watchdog has not looked for {still_s:.0f} s" if still_s > _STILL_S else ""

    def _ready(self) -> str:
        ready = self._kept is not None and (Path(self._kept.name) / READY).exists()
        return self._alive() if ready else "Celery's worker takes no messages yet"


class _OfPool(Collector):
    """What all processes of the pool have counted, those included that are gone."""

    def __init__(self, directory: str) -> None:
        self._files = MultiProcessCollector(None, directory)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        # Modules that tasks of ours share with a reader may have made metrics, too, which mean nothing here.
        found: Iterable[Metric] = self._files.collect()  # type: ignore[no-untyped-call]
        yield from (metric for metric in found if metric.name.startswith(PREFIX))

"""Metrics, and functions for health -> HTTP: /metrics for Prometheus, /healthz and /readyz for a supervisor.

Edge: one listening socket, one thread for each request. The label `source` is added to outhaul's metrics when they are
collected. It separates pipelines under one Prometheus, and costs the counters nothing while the pipeline works.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import platform
import threading
from dataclasses import dataclass
from importlib.metadata import version
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client.metrics_core import Metric

    from outhaul.sink.settings import Settings

PREFIX = "outhaul_"

# A client that sends nothing must not occupy its thread forever; in seconds.
_CLIENT_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Health:
    """Two checks of a process; each returns the reason why it fails, or an empty text.

    `alive`: whether its loop runs; if not, a restart helps. `ready`: whether it does its work, or stands by for it.
    """

    alive: Callable[[], str]
    ready: Callable[[], str]


class WithSource(Collector):
    """The metrics of another collector, with the pipeline's name as the label `source` on outhaul's metrics."""

    def __init__(self, collector: Collector, source: str) -> None:
        """Wrap a collector or registry."""
        self._collector = collector
        self._source = source

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics."""
        for metric in self._collector.collect():
            if metric.name.startswith(PREFIX):
                metric.samples = [
                    sample._replace(labels={"source": self._source, **sample.labels}) for sample in metric.samples
                ]
            yield metric


class BuildInfo(Collector):
    """The metric `outhaul_build_info`: kind of the process, and its versions."""

    def __init__(self, process: str) -> None:
        """Name the process: reader, worker or exporter."""
        self._labels = {"process": process, "version": version("outhaul"), "python": platform.python_version()}

    def collect(self) -> Iterable[Metric]:
        """Yield the one metric."""
        metric = GaugeMetricFamily(f"{PREFIX}build_info", "Always 1; the labels tell what runs", labels=[*self._labels])
        metric.add_metric([*self._labels.values()], 1)
        yield metric


def expose(settings: Settings, source: str, process: str, collectors: Iterable[Collector], health: Health) -> int:
    """Serve /metrics, /healthz and /readyz in a thread, if the settings have a port; return the port, or 0.

    Raises:
        FatalError: the port is taken.
    """
    if not settings.metrics_port:
        return 0
    # The creation time of each counter would double the page, and tells no more than process_start_time_seconds.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    for collector in (BuildInfo(process), *collectors):
        registry.register(WithSource(collector, source))
    host, port = settings.metrics_host, settings.metrics_port
    try:
        server = make_server(host, port, application(registry, health), _Server, _Handler)
    except OSError as error:
        raise FatalError(
            f"metrics cannot be served on {host}:{port} ({error.strerror})",
            todo="Set another OUTHAUL_METRICS_PORT for this process, or 0",
            exit_code=Exit.SETTINGS,
        ) from error
    threading.Thread(target=server.serve_forever, name="outhaul-metrics", daemon=True).start()
    return int(server.server_port)


def application(registry: CollectorRegistry, health: Health) -> WSGIApplication:
    """Return the WSGI application of the three pages."""
    metrics = make_wsgi_app(registry)
    checks = {"/healthz": health.alive, "/readyz": health.ready}

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            pages: Iterable[bytes] = metrics(environ, start)
            return pages
        check = checks.get(path)
        if check is None:
            return _respond(start, "404 Not Found", "outhaul serves /metrics, /healthz and /readyz")
        reason = check()
        return _respond(start, "503 Service Unavailable", reason) if reason else _respond(start, "200 OK", "ok")

    return answer


def _respond(start: StartResponse, status: str, text: str) -> list[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Log nothing if a client closes its connection."""


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT_S

    def log_message(self, *_: object) -> None:
        """Log no requests."""

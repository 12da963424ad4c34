"""Settings -> an exporter that looks and serves until it is told to stop. Edge: starts threads and waits."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import structlog
from prometheus_client import REGISTRY

from outhaul.cdc_reader.operate.exporter import postgres_metrics
from outhaul.cdc_reader.operate.exporter.audit import Audit
from outhaul.cdc_reader.operate.exporter.clickhouse_metrics import ClickHouseLook
from outhaul.cdc_reader.operate.exporter.collect import Watch, Watches
from outhaul.cdc_reader.operate.exporter.redis_metrics import CeleryLook, RedisLook
from outhaul.sink.telemetry.exposition import Health, expose

if TYPE_CHECKING:
    import threading

    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.exporter")

# An audit rests for so many times as long as it compared: it takes less than a twentieth of one connection.
_AUDIT_REST = 20.0
# Asking workers takes a second and a message to each of them.
_CELERY_EVERY_S = 15.0


def run(settings: Settings, stopping: threading.Event, *, every_s: float, audit_every_s: float) -> None:
    """Look at all servers every `every_s` seconds, and audit every `audit_every_s`; 0 leaves the audit out.

    Raises:
        FatalError: the settings do not hold, or the port is taken.
    """
    watches = [
        Watch("postgres", functools.partial(postgres_metrics.look, settings), every_s, "1 while Postgres answers"),
        Watch("clickhouse", ClickHouseLook(settings).look, every_s, "1 while ClickHouse answers"),
        Watch("redis", RedisLook(settings).look, every_s, "1 while Redis answers"),
        Watch("celery", CeleryLook(settings).look, max(every_s, _CELERY_EVERY_S)),
    ]
    if audit_every_s:
        audit = Audit(settings)
        watches.append(Watch("audit", audit.look, audit_every_s, rest_s=lambda: _AUDIT_REST * audit.busy_s))
    all_of_them = Watches(watches)
    port = expose(settings, "exporter", (all_of_them, REGISTRY), Health(all_of_them.alive, all_of_them.ready))
    log.info("exporting", source=settings.source, port=port)
    stopping.wait()
    all_of_them.over.set()

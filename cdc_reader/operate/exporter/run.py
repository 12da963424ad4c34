"""Settings -> an exporter that polls and serves until it is stopped. Edge: starts threads and waits."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import structlog
from prometheus_client import REGISTRY

from outhaul.cdc_reader.operate.exporter import postgres_metrics
from outhaul.cdc_reader.operate.exporter.audit import Audit
from outhaul.cdc_reader.operate.exporter.clickhouse_metrics import ClickHouseMetrics
from outhaul.cdc_reader.operate.exporter.collect import Poll, Polls
from outhaul.cdc_reader.operate.exporter.redis_metrics import CeleryMetrics, RedisMetrics
from outhaul.cdc_reader.operate.exporter.view_audit import ViewAudit
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.settings import load
from outhaul.sink.telemetry.exposition import Health, expose

if TYPE_CHECKING:
    import threading

    from outhaul.sink.errors import PipelineError
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.exporter")

# After a pass the audit rests this many times as long as it compared: a connection is busy less than 1/20 of the time.
_AUDIT_REST = 20.0
# A poll of the workers takes a second, and a message to each of them.
_CELERY_EVERY_S = 15.0
_LOGINS = {Exit.CLICKHOUSE_LOGIN, Exit.POSTGRES_LOGIN, Exit.REDIS_LOGIN}


def run(
    settings: Settings, stopping: threading.Event, *, every_s: float, audit_every_s: float, views_every_s: float
) -> None:
    """Poll all servers every `every_s` seconds, audit every `audit_every_s`, and compare views every `views_every_s`.

    0 turns the audit, or the comparison of views, off.

    Raises:
        FatalError: the settings are invalid, or the port is taken; or a server refuses the login, and its secret has
            another value now than at the start.
    """
    outdated: list[PipelineError] = []

    def failed(error: PipelineError) -> None:
        if error.exit_code in _LOGINS and load() != settings:
            outdated.append(error)
            stopping.set()

    polls = [
        Poll("postgres", functools.partial(postgres_metrics.collect, settings), every_s, "1 while Postgres answers"),
        Poll("clickhouse", ClickHouseMetrics(settings).collect, every_s, "1 while ClickHouse answers"),
        Poll("redis", RedisMetrics(settings).collect, every_s, "1 while Redis answers"),
        Poll("celery", CeleryMetrics(settings).collect, max(every_s, _CELERY_EVERY_S)),
    ]
    if audit_every_s:
        audit = Audit(settings)
        polls.append(Poll("audit", audit.run_pass, audit_every_s, rest_s=lambda: _AUDIT_REST * audit.busy_s))
    if views_every_s:
        views = ViewAudit(settings)
        polls.append(Poll("views", views.run_pass, views_every_s, rest_s=lambda: _AUDIT_REST * views.busy_s))
    for poll in polls:
        poll.failed = failed
    all_polls = Polls(polls)
    port = expose(
        settings, settings.source, "exporter", (all_polls, REGISTRY), Health(all_polls.alive, all_polls.ready)
    )
    log.info("exporting", source=settings.source, port=port)
    stopping.wait()
    all_polls.over.set()
    if outdated:
        raise FatalError(
            f"{outdated[0].message}: the secret was changed after this exporter had read it",
            todo="Start the exporter again; a supervisor does so",
            exit_code=outdated[0].exit_code,
        )

"""Celery message -> one pass of pruning, where the settings ask for it.

Edge: Celery. A worker knows the task when it is told to: `outhaul worker` does so itself, Celery's own worker by
`--include outhaul.cdc_reader.operate.pruning.prune_task`. Celery beat sends the message every ten minutes. A pass ends
in time by itself; the
next one goes on.

Source: https://docs.celeryq.dev/en/stable/userguide/periodic-tasks.html
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog
from celery import shared_task

from outhaul.cdc_reader.operate.pruning.outbox_table import OutboxTable
from outhaul.cdc_reader.operate.pruning.prune import Wish, prune
from outhaul.cdc_reader.postgres.preflight import connect
from outhaul.sink.errors import PipelineError
from outhaul.sink.task import sink_of
from outhaul.sink.task_names import PRUNE
from outhaul.sink.telemetry import sentry

if TYPE_CHECKING:
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.prune")


@shared_task(name=PRUNE, bind=True, max_retries=0)  # type: ignore[untyped-decorator] # celery has no types
def prune_once(self: Any, *arguments: object, **named: object) -> str:
    """Make one pass; what goes wrong is logged, and left to the next one.

    Args:
        self: the task.
        arguments: none; how old a row may become is in the settings of the worker, where no message reaches.
        named: none.
    """
    sink = sink_of(self.app)
    settings: Settings = sink.settings
    if arguments or named or not settings.prune_older_than:
        log.warning("prune_refused", reason="not asked for by the settings")
        return "refused"
    deadline = time.monotonic() + settings.insert_timeout_s
    wish = Wish(settings.prune_older_than)
    for outbox in settings.outboxes():
        try:
            with connect(settings.postgres_dsn.get_secret_value()) as conn:
                table = OutboxTable(conn, outbox, dry_run=False)
                report = prune(table, sink.clickhouse, outbox, wish, lambda: time.monotonic() > deadline)
        except PipelineError as error:
            log.error("prune_failed", task=self.request.id, table=outbox.table, error=error)  # noqa: TRY400 - the line is the message
            sentry.told(error)
            return "failed"
        if report.lacking:
            log.warning("pruned", task=self.request.id, table=outbox.table, **report.to_json())
        else:
            log.info("pruned", task=self.request.id, table=outbox.table, **report.to_json())
    return "done"

"""Celery message -> one pass of pruning, if OUTHAUL_PRUNE_OLDER_THAN is set.

Edge: Celery. `outhaul worker` registers the task itself; for Celery's own worker pass
`--include outhaul.cdc_reader.operate.pruning.prune_task`. Celery beat sends the message every ten minutes. A pass ends
before the task's time limit; the next one continues.

Source: https://docs.celeryq.dev/en/stable/userguide/periodic-tasks.html
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog
from celery import shared_task

from outhaul.cdc_reader.operate.pruning.outbox_table import OutboxTable
from outhaul.cdc_reader.operate.pruning.prune import PruneRequest, prune
from outhaul.cdc_reader.postgres.connect import connect_primary
from outhaul.sink.errors import PipelineError
from outhaul.sink.task import ending_if_refused, sink_of
from outhaul.sink.task_names import PRUNE
from outhaul.sink.telemetry import sentry

if TYPE_CHECKING:
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.prune")


@shared_task(name=PRUNE, bind=True, max_retries=0)  # type: ignore[untyped-decorator] # celery has no types
def prune_once(self: Any, *arguments: object, **named: object) -> str:
    """Make one pass; errors are logged, and the next pass tries again.

    Args:
        self: the task.
        arguments: must be empty; the age comes from the worker's settings, which a message cannot change.
        named: must be empty.
    """
    sink = sink_of(self.app)
    settings: Settings = sink.settings
    if arguments or named or settings.prune_older_than is None:
        log.warning("prune_refused", reason="OUTHAUL_PRUNE_OLDER_THAN is not set, or the message has arguments")
        return "refused"
    deadline = time.monotonic() + settings.insert_timeout_s
    request = PruneRequest(settings.prune_older_than)
    for outbox in settings.outboxes():
        try:
            with ending_if_refused(), connect_primary(settings) as conn:
                table = OutboxTable(conn, outbox, dry_run=False)
                report = prune(table, sink.clickhouse, outbox, request, lambda: time.monotonic() > deadline)
        except PipelineError as error:
            log.error("prune_failed", task=self.request.id, table=outbox.table, error=error)  # noqa: TRY400 - the line is the message
            sentry.report(error)
            return "failed"
        except Exception:
            # The next pass tries again, and `outhaul status` shows the failure until then.
            log.exception("prune_failed", task=self.request.id, table=outbox.table)
            return "failed"
        if report.lacking:
            log.warning("pruned", task=self.request.id, table=outbox.table, **report.to_json())
        else:
            log.info("pruned", task=self.request.id, table=outbox.table, **report.to_json())
    return "done"

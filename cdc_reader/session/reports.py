"""Lists in Redis that workers push reports to -> the reports, and what each one changes in the ledger.

Edge: Redis. The stream and copies from the outbox receive their reports here.

Source: docs/adr/0001-clickhouse-is-the-checkpoint.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.session.ledger import Entry, Ledger, Phase, TaskHealth
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.redis_keys import alive_key
from outhaul.sink.report import Outcome, Report
from outhaul.sink.telemetry import log_context

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.seal import Seal
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.reader")

_SHOWN_BYTES = 200


@dataclass(frozen=True, slots=True)
class ReportEffect:
    """What a report changed: the stored batch, removed from the ledger; or why the batch is not stored yet.

    `wait_s` is the wait of a batch that a worker of another release has refused, in seconds.
    """

    stored: Entry | None = None
    trouble: str = ""
    wait_s: float = 0.0


def read_reports(payloads: Payloads, seal: Seal, list_key: str) -> Iterator[Report]:
    """Yield the reports that arrive within a second; count lines that no worker of this pipeline wrote.

    Raises:
        TransientError: Redis does not answer.
    """
    for line in payloads.reports(list_key, wait_s=1):
        bare = seal.opened_line(list_key, line)
        if bare is None:
            metrics.REPORTS_REFUSED.labels("forged").inc()
            log.warning("report_forged", line=line[:_SHOWN_BYTES])
        elif (report := Report.from_json(bare)) is None:
            metrics.REPORTS_REFUSED.labels("unreadable").inc()
            log.warning("report_unreadable", line=line[:_SHOWN_BYTES])
        else:
            yield report


def check_tasks(payloads: Payloads, settings: Settings, tokens: Collection[str]) -> TaskHealth:
    """Return the number of queued messages, and which of the batches with these tokens have a task that is alive.

    Raises:
        TransientError: Redis does not answer.
    """
    asked = tuple(tokens)
    present = payloads.present([alive_key(settings.source, token) for token in asked])
    alive = frozenset(token for token, is_there in zip(asked, present, strict=True) if is_there)
    return TaskHealth(payloads.length(settings.queue_key), alive)


def note_report(ledger: Ledger, report: Report, now: float) -> ReportEffect | None:
    """Apply a report to the ledger; return None if its batch is not in flight.

    The reports `missing` and `stale` change nothing here: the caller acts on them.

    Raises:
        FatalError: an operator is needed.
    """
    if not ledger.has(report.sequence, report.token):
        return None
    match report.outcome:
        case Outcome.STORED:
            return ReportEffect(stored=ledger.remove(report.sequence, report.token))
        case Outcome.BEGUN:
            ledger.note(report.sequence, Phase.BEGUN, now)
        case Outcome.RETRYING:
            ledger.note(report.sequence, Phase.RETRYING, now, report.wait_s)
            return ReportEffect(trouble=report.error)
        case Outcome.OTHER_VERSION:
            wait_s = ledger.refused(report.sequence, now)
            return ReportEffect(trouble=f"{report.error}. {report.todo}", wait_s=wait_s) if wait_s else ReportEffect()
        case Outcome.FATAL:
            log_context.bind(ledger.entries[report.sequence].message)
            raise FatalError(report.error, code=report.code, todo=report.todo, exit_code=Exit(report.exit_code))
        case Outcome.MISSING | Outcome.STALE:
            pass
    return ReportEffect()

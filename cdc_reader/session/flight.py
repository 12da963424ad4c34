"""Packed batches, reports of workers -> what is sent, sent again or settled, and how far the slot may move.

Edge: joins ledger and watermark for one session, and logs and counts what it decides about a batch. Belongs to the
loop's thread alone; only the queue of what is to be sent is read by another.
"""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.session.ledger import Entry, Health, Ledger, Phase
from outhaul.cdc_reader.session.watermark import Watermark
from outhaul.sink.batch import Message
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.failpoint import reach
from outhaul.sink.report import Outcome, Report
from outhaul.sink.telemetry import log_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.session.progress import Progress
    from outhaul.cdc_reader.session.stages import Packed
    from outhaul.sink.position import Lsn
    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.reader")


class Flight:
    """The batches of a session that are not stored yet; `stored_at` is the clock when the latest one was."""

    def __init__(
        self, settings: Settings, progress: Progress, confirmed: Lsn, owner: str, clock: Callable[[], float]
    ) -> None:
        """Start with nothing.

        Args:
            settings: the settings.
            progress: hears of what is packed and stored, and of what workers say.
            confirmed: position that the slot has confirmed.
            owner: random name of the session.
            clock: seconds, monotonic.
        """
        self.watermark = Watermark(confirmed)
        self.ledger = Ledger(settings.redispatch_s)
        self.to_send: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self.stored_at = float("-inf")
        self._settings = settings
        self._progress = progress
        self._owner = owner
        self._clock = clock
        self._sequence = 0

    def add(self, packed: Packed, epoch: int) -> None:
        """Take in the batches of a piece, and have them sent."""
        first = self._sequence
        for assembled in packed.batches:
            message = Message.of(
                assembled.batch,
                source=self._settings.source,
                lane=self._settings.lane,
                epoch=epoch,
                owner=self._owner,
                sequence=self._sequence,
                attempt=0,
            )
            self._sequence += 1
            self._progress.packed(message)
            self.to_send.put(self.ledger.add(message, assembled, self._clock()))
        self.watermark.decoded(list(range(first, self._sequence)), packed.safe_lsn)

    def was_sent(self, sequence: int) -> None:
        """Note that the broker has a batch's message."""
        self.ledger.heard(sequence, Phase.SENT, self._clock())

    def doubt(self, health: Health) -> None:
        """Send again what nobody has said anything of for too long, in view of what Redis knows."""
        for sequence in self.ledger.decide_again(self._clock(), health):
            is_refused = self.ledger.entries[sequence].phase is Phase.REFUSED
            self._send_again(sequence, "other_version" if is_refused else "silence")

    def redis_lost(self) -> None:
        """Send again all that was on its way when Redis lost what it held."""
        for sequence in self.ledger.on_their_way():
            self._send_again(sequence, "redis")

    def hear(self, report: Report) -> None:
        """Take in what a worker says of a batch.

        Raises:
            TransientError: a newer reader has taken over.
            FatalError: an operator is needed.
        """
        if not self.ledger.awaits(report.sequence, report.token):
            # Of a batch that is stored by now, or nobody's: it must neither move nor stop anything.
            log.info("report_passed_over", batch=report.sequence, token=report.token, outcome=report.outcome.value)
            return
        match report.outcome:
            case Outcome.STORED:
                self._settle(report)
            case Outcome.BEGUN:
                self.ledger.heard(report.sequence, Phase.BEGUN, self._clock())
            case Outcome.RETRYING:
                self.ledger.heard(report.sequence, Phase.RETRYING, self._clock(), report.wait_s)
                self._progress.trouble["sink"] = report.error
            case Outcome.MISSING:
                self._send_again(report.sequence, "missing")
            case Outcome.OTHER_VERSION:
                self._note_refusal(report)
            case Outcome.STALE:
                raise TransientError("a newer reader has taken over this source")
            case Outcome.FATAL:
                log_context.bind(self.ledger.entries[report.sequence].message)
                raise FatalError(report.error, code=report.code, todo=report.todo, exit_code=Exit(report.exit_code))

    def _note_refusal(self, report: Report) -> None:
        wait_s = self.ledger.refused(report.sequence, self._clock())
        if wait_s:
            named = {"batch": report.sequence, "token": report.token, "wait_s": wait_s}
            log.warning("batch_refused", **named, error=report.error, todo=report.todo)
            self._progress.trouble["sink"] = f"{report.error}. {report.todo}"

    def _settle(self, report: Report) -> None:
        entry = self.ledger.settle(report.sequence, report.token)
        if entry is None:
            return
        self.watermark.stored(report.sequence)
        reach("reader.stored")
        self.stored_at = self._clock()
        self._progress.stored(entry, report.dead_letters, time.time_ns() // 1000, self.stored_at)

    def _send_again(self, sequence: int, reason: str) -> None:
        entry = self.ledger.again(sequence)
        if entry is not None:
            metrics.REDISPATCHES.labels(reason).inc()
            log.warning(
                "sending_again",
                batch=sequence,
                token=entry.message.token,
                task=entry.message.task_id,
                attempt=entry.message.attempt,
                reason=reason,
            )
            self.to_send.put(entry)

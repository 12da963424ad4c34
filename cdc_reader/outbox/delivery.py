"""Batches of copied rows -> the sink, and its reports that they are stored.

Edge: Redis, through the reader's dispatcher and ledger, in the lane for copies. One thread sends batches, receives
reports, and sends batches again that seem lost. At most `max_in_flight` batches are in flight. If nothing is stored for
too long, the copy ends with an error.

Source: docs/adr/0008-the-outbox-is-a-second-log.md
"""

from __future__ import annotations

import time
from random import SystemRandom
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.capture.dispatch import Dispatcher
from outhaul.cdc_reader.session.in_flight import Messages
from outhaul.cdc_reader.session.ledger import Ledger, Phase
from outhaul.cdc_reader.session.reports import check_tasks, note_report, read_reports
from outhaul.sink.backoff import backoff_s
from outhaul.sink.errors import FatalError, TransientError
from outhaul.sink.fence import EpochOverError
from outhaul.sink.lanes import COPY, fence
from outhaul.sink.redis_keys import stored_key
from outhaul.sink.report import Outcome
from outhaul.sink.seal import seal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.capture.assemble import Assembled
    from outhaul.sink.app import SinkApp
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.report import Report
    from outhaul.sink.settings import Outbox

log = structlog.get_logger("outhaul.copy")

_random = SystemRandom().random
_CHECK_S = 1.0


class Delivery:
    """Sends the batches of one epoch of the lane for copies."""

    def __init__(
        self,
        outbox: Outbox,
        app: SinkApp,
        payloads: Payloads,
        clickhouse: ClickHouse,
        epoch: int,
        owner: str,
        *,
        give_up_s: float,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            outbox: the table whose rows are copied.
            app: Celery app that sends the tasks.
            payloads: Redis.
            clickhouse: client that adds the columns that the table lacks.
            epoch: epoch of this copy in the lane.
            owner: name under which the epoch was raised.
            give_up_s: seconds without a stored batch after which the copy ends with an error.
        """
        self.stored_rows = 0
        self.dead_letters = 0
        self._settings = outbox.settings
        self._letters_table = outbox.dead_letters_table
        self._payloads = payloads
        self._dispatcher = Dispatcher(app, payloads, clickhouse, lane=COPY)
        self._epoch = epoch
        self._seal = seal_of(self._settings)
        self._give_up_s = give_up_s
        self._ledger = Ledger(self._settings.redispatch_s)
        self._messages = Messages(self._settings.source, COPY, owner, epoch)
        self._stored_at = time.monotonic()
        self._checked_at = self._stored_at
        self._trouble = ""
        self._announced = False

    def send(self, assembled: Assembled) -> None:
        """Send a batch; first wait until fewer than `max_in_flight` are in flight.

        Raises:
            TransientError: the sink stores nothing. Stored rows stay, and another run copies the others.
            FatalError: an operator is needed, or another copy has taken over.
        """
        self._wait_until(lambda: len(self._ledger.entries) < self._settings.max_in_flight)
        if not self._ledger.entries:
            self._stored_at = time.monotonic()
        message = self._messages.make(assembled.batch)
        self._ledger.add(message, assembled, time.monotonic())
        self._send(message.sequence)

    def drain(self) -> None:
        """Wait until all sent batches are stored.

        Raises:
            PipelineError: as `send`.
        """
        self._wait_until(lambda: not self._ledger.entries)

    def _wait_until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            if time.monotonic() - self._stored_at > self._give_up_s:
                raise TransientError(
                    f"nothing was stored for {self._give_up_s:g} s: {self._trouble or 'no worker has reported'}",
                    todo="Check `outhaul status` (is a worker running?) and run this again: stored rows stay",
                )
            self._turn()

    def _turn(self) -> None:
        """Receive reports for a second, then check batches without a report; wait if Redis does not answer."""
        try:
            key = stored_key(fence(self._settings.source, COPY), self._epoch)
            for report in read_reports(self._payloads, self._seal, key):
                self._apply(report)
            if time.monotonic() - self._checked_at >= _CHECK_S:
                self._check_tasks()
        except EpochOverError:
            raise
        except TransientError as error:
            self._trouble = str(error)
            log.warning("copy_waits", source=self._settings.source, epoch=self._epoch, error=error)
            for sequence in self._ledger.sent():
                self._ledger.mark_for_resend(sequence)
            time.sleep(backoff_s(3, max_s=self._settings.retry_max_s, random=_random()))

    def _check_tasks(self) -> None:
        self._checked_at = time.monotonic()
        health = check_tasks(self._payloads, self._settings, self._ledger.begun_tokens)
        for sequence in self._ledger.decide_resends(self._checked_at, health):
            self._ledger.mark_for_resend(sequence)
        for sequence, entry in list(self._ledger.entries.items()):
            if entry.phase is Phase.WAITING:
                self._send(sequence)

    def _apply(self, report: Report) -> None:
        effect = note_report(self._ledger, report, time.monotonic())
        if effect is None:
            return
        if effect.stored is not None:
            message = effect.stored.message
            self.stored_rows += message.rows
            is_letter = message.table == self._letters_table
            self.dead_letters += message.rows if is_letter else report.dead_letters
            self._stored_at = time.monotonic()
        if effect.stored is not None or effect.trouble:
            self._trouble = effect.trouble
        if report.outcome is Outcome.MISSING:
            self._ledger.mark_for_resend(report.sequence)
            self._send(report.sequence)
        if report.outcome is Outcome.STALE:
            if report.error:
                raise EpochOverError(report.error, todo="Run this again: stored rows stay")
            raise FatalError("another copy from this outbox has taken over", todo="Wait until it ends")

    def _send(self, sequence: int) -> None:
        """Send a batch that waits to be sent; if Redis does not answer, it continues to wait."""
        entry = self._ledger.entries[sequence]
        if entry.message.attempt:
            metrics.REDISPATCHES.labels("copy").inc()
        try:
            if not self._announced:
                self._dispatcher.announce_epoch(self._epoch)
                self._announced = True
            self._dispatcher.send(entry.message, entry.assembled)
        except TransientError as error:
            self._trouble = str(error)
            task = entry.message.task_id
            log.warning("copy_waits", source=self._settings.source, batch=sequence, task=task, error=error)
        else:
            self._ledger.note(sequence, Phase.SENT, time.monotonic())

"""Packed batches, reports of workers -> which batches are sent, sent again or stored, and how far the slot may move.

Edge: joins ledger and watermark for one session; logs and counts what happens to a batch. Only the loop's thread uses
it; another thread reads only the queue `to_send`.

Source: docs/adr/0001-clickhouse-is-the-checkpoint.md
"""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.session.ledger import Entry, Ledger, Phase, TaskHealth
from outhaul.cdc_reader.session.reports import note_report
from outhaul.cdc_reader.session.watermark import Watermark
from outhaul.sink.batch import Message
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.failpoint import reach
from outhaul.sink.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.session.loop_events import Packed
    from outhaul.cdc_reader.session.reader_state import Progress
    from outhaul.sink.batch import Batch
    from outhaul.sink.position import Lsn
    from outhaul.sink.report import Report
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.reader")


class Messages:
    """Makes and numbers the messages of one owner in one lane; `epoch` is None before recovery is done."""

    def __init__(self, source: str, lane: str, owner: str, epoch: int | None = None) -> None:
        """Start at number 0."""
        self.epoch = epoch
        self.count = 0
        self._source = source
        self._lane = lane
        self._owner = owner

    def make(self, batch: Batch) -> Message:
        """Return the message of the next batch.

        Raises:
            FatalError: recovery is not done.
        """
        if self.epoch is None:
            raise FatalError("a piece was decoded before recovery was done", exit_code=Exit.STREAM_BROKEN)
        message = Message.of(
            batch,
            source=self._source,
            lane=self._lane,
            epoch=self.epoch,
            owner=self._owner,
            sequence=self.count,
            attempt=0,
        )
        self.count += 1
        return message


class Flight:
    """The batches of a session that are not stored yet; `stored_at` is the clock when a batch was last stored."""

    def __init__(
        self, stream: Stream, progress: Progress, confirmed: Lsn, owner: str, clock: Callable[[], float]
    ) -> None:
        """Start without a batch.

        Args:
            stream: what is streamed.
            progress: counts what is packed and stored, and keeps the errors that workers report.
            confirmed: position that the slot has confirmed.
            owner: random name of the session.
            clock: seconds, monotonic.
        """
        self.watermark = Watermark(confirmed)
        self.ledger = Ledger(stream.settings.redispatch_s)
        self.messages = Messages(stream.settings.source, stream.lane, owner)
        self.progress = progress
        self.to_send: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self.stored_at = float("-inf")
        self._clock = clock

    def add(self, packed: Packed) -> None:
        """Add the batches of a group, and queue them for sending.

        Raises:
            FatalError: recovery is not done.
        """
        first = self.messages.count
        for assembled in packed.batches:
            message = self.messages.make(assembled.batch)
            self.progress.packed(message)
            self.to_send.put(self.ledger.add(message, assembled, self._clock()))
        self.watermark.decoded(list(range(first, self.messages.count)), packed.safe_lsn)

    def note_sent(self, sequence: int) -> None:
        """Note that the broker has the message of a batch."""
        self.ledger.note(sequence, Phase.SENT, self._clock())

    def resend_lost(self, health: TaskHealth) -> None:
        """Send the batches again that seem lost, given the state of their tasks in Redis."""
        for sequence in self.ledger.decide_resends(self._clock(), health):
            is_refused = self.ledger.entries[sequence].phase is Phase.REFUSED
            self._send_again(sequence, "other_version" if is_refused else "silence")

    def resend_all(self) -> None:
        """Send all sent batches again, since Redis has lost its data."""
        for sequence in self.ledger.sent():
            self._send_again(sequence, "redis")

    def apply(self, report: Report) -> None:
        """Apply a worker's report of a batch.

        Raises:
            TransientError: a newer reader has taken over the source.
            FatalError: an operator is needed.
        """
        named = {"batch": report.sequence, "token": report.token}
        effect = note_report(self.ledger, report, self._clock())
        if effect is None:
            # The batch is already stored, or is of another session: the report must not have an effect.
            log.info("report_passed_over", **named, outcome=report.outcome.value)
            return
        if effect.stored is not None:
            self._note_stored(effect.stored, report.dead_letters)
        if effect.trouble:
            self.progress.trouble["sink"] = effect.trouble
            self.progress.sink_trouble_at = self._clock()
        if effect.wait_s:
            log.warning("batch_refused", **named, wait_s=effect.wait_s, error=report.error, todo=report.todo)
        if report.outcome is Outcome.MISSING:
            self._send_again(report.sequence, "missing")
        if report.outcome is Outcome.STALE:
            raise TransientError(report.error or "a newer reader has taken over this source")

    def _note_stored(self, entry: Entry, dead_letters: int) -> None:
        self.watermark.stored(entry.message.sequence)
        reach("reader.stored")
        self.stored_at = self._clock()
        self.progress.stored(entry, dead_letters, time.time_ns() // 1000, self.stored_at)

    def _send_again(self, sequence: int, reason: str) -> None:
        entry = self.ledger.mark_for_resend(sequence)
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

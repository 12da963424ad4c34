"""One session: frames from the slot -> stages -> reports -> feedback to the slot.

Edge: joins the files named in docs/architecture.md and decides nothing. One thread runs the loop; it alone uses the
socket and the batches in flight. It waits only for the socket, for events of the stages and for the next deadline, so
feedback is sent in time whatever Redis, ClickHouse or a huge transaction do.

Source: docs/adr/0003-one-thread-owns-the-session.md
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import bind_contextvars

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.capture.batching import Intake, Limits, Load
from outhaul.cdc_reader.capture.decode import Decoder
from outhaul.cdc_reader.capture.wire import Wire
from outhaul.cdc_reader.session.in_flight import Flight
from outhaul.cdc_reader.session.loop_events import (
    Begun,
    Failed,
    Packed,
    PieceDecoded,
    RedisLost,
    Sent,
    TasksChecked,
    Trouble,
)
from outhaul.cdc_reader.session.pause import Gate, PauseRequest
from outhaul.cdc_reader.session.reader_state import Progress, phase
from outhaul.cdc_reader.session.threads import Threads, Tools
from outhaul.sink.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.session.loop_events import Event
    from outhaul.sink.position import Lsn
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.reader")

# Seconds that a stopping reader waits for the batches in flight; the next reader streams the other rows again.
DRAIN_S = 30.0
# Seconds that it waits while no batch is stored: perhaps no worker runs.
DRAIN_QUIET_S = 5.0
# Limit of packed batches in flight, in bytes, whatever the size of a batch: they are kept in memory.
MAX_IN_FLIGHT_BYTES = 96 << 20
_MAX_UNPACKED = 2


class Session:
    """State of one streaming session. After every failure a new one is made, which begins with recovery."""

    def __init__(self, stream: Stream, tools: Tools, confirmed: Lsn, *, owner: str, status_interval_s: float) -> None:
        """Prepare a session on a link that is started.

        Args:
            stream: what is streamed.
            tools: edges, clock and randomness.
            confirmed: position that the slot has confirmed.
            owner: random name of the session, the same that `tools.recover` uses.
            status_interval_s: longest time between two messages to Postgres, in seconds.
        """
        settings = stream.settings
        limits = Limits(settings.batch_max_rows, settings.batch_max_bytes, settings.linger_s, settings.max_in_flight)
        decoder = Decoder(
            {outbox.table: outbox.clickhouse_table for outbox in settings.outboxes()},
            messages={stream.message_prefix: settings.clickhouse_table} if stream.message_prefix else {},
            first_ordinal=stream.first_ordinal,
        )
        progress = Progress({outbox.dead_letters_table for outbox in settings.outboxes()})
        self.stream = stream
        self.tools = tools
        self.flight = Flight(stream, progress, confirmed, owner, tools.clock)
        self.threads = Threads(stream, tools, decoder)
        self._wire = Wire(tools.link, status_interval_s, settings.receive_timeout_s, tools.clock())
        self._intake = Intake(limits)
        self._gate = Gate()

    def run(self, stopping: Callable[[], bool]) -> None:
        """Stream until told to stop, then drain.

        Raises:
            TransientError: the link or the epoch is lost; begin a new session.
            FatalError: an operator is needed.
            UnsupportedBinary: begin a new session with text tuples.
        """
        self._update_snapshot(self.tools.clock())
        self.threads.begin()
        try:
            while not self._done(stopping()):
                self._turn()
            self._wire.send_feedback(self.flight.watermark.confirmed, self.tools.clock())
        finally:
            self.threads.end(self.flight)

    def _turn(self) -> None:
        max_bytes, max_frames = self._intake.room() if self._gate.is_open(self.tools.clock()) else (0, 0)
        events, gather = self.threads.events, not self._intake.is_empty
        self._wire.wait(events.fileno(), self._deadline(), self._intake.run, max_bytes, max_frames, gather=gather)
        now = self.tools.clock()
        if not gather:
            self._intake.begin(now)
        for event in events.take():
            self._handle(event)
        self._pass_to_decoder(now)
        self._wire.keep_alive(self.flight.watermark.confirmed, now, reading=max_bytes > 0)
        self.tools.liveness.note_turn(now, self._wire.received_at, self._wire.sent_at)
        self._update_snapshot(now)

    def _deadline(self) -> float:
        load, now = self._load(), self.tools.clock()
        # When the stream is no longer busy, the batch is due at another time.
        change = self._wire.busy_until if load.busy else float("inf")
        return min(self._intake.due_at(load), change, self._wire.due_at(), now + 1.0)

    def _load(self) -> Load:
        # If another limit is reached, the load is that of `max_in_flight` batches: no batch may begin.
        is_full = self.flight.watermark.undecoded >= _MAX_UNPACKED or self.flight.ledger.size >= MAX_IN_FLIGHT_BYTES
        in_flight = self._intake.limits.max_in_flight if is_full else self.flight.watermark.in_flight
        return Load(in_flight, self._intake.lag_s, self._wire.is_busy(self.tools.clock()))

    def _pass_to_decoder(self, now: float) -> None:
        piece = self._intake.take_piece(self._load(), now, draining=self._gate.is_draining)
        if piece is not None:
            self.threads.pieces.put(piece)
            if piece.ends_batch:
                self.flight.watermark.add_group()

    def _handle(self, event: Event) -> None:
        match event:
            case Begun(recovered):
                self._begin(recovered.epoch)
            case PieceDecoded():
                self._note_decoded(event)
            case Packed():
                self.flight.add(event)
            case Sent(sequence):
                self.flight.note_sent(sequence)
            case TasksChecked(health):
                self.flight.resend_lost(health)
            case Report():
                self.flight.apply(event)
            case RedisLost():
                self.flight.resend_all()
            case PauseRequest():
                self._gate.update(event, self.tools.clock())
            case Trouble(where, None):
                self.flight.progress.trouble.pop(where, None)
            case Trouble(where, error):
                self.flight.progress.trouble[where] = str(error)
            case Failed(error):
                raise error

    def _note_decoded(self, decoded: PieceDecoded) -> None:
        at_us = decoded.committed_at_us
        self._intake.decoded(None if at_us is None else time.time() - at_us / 1e6)
        self.flight.progress.captured(decoded.rows, decoded.left_out, decoded.size)

    def _begin(self, epoch: int) -> None:
        self.flight.messages.epoch = epoch
        metrics.SESSIONS.inc()
        bind_contextvars(epoch=epoch)
        self.threads.begin_sending(self.flight, epoch)

    def _done(self, stopping: bool) -> bool:
        now = self.tools.clock()
        if stopping and not self._gate.is_draining:
            self._gate.drain(now)
            log.info("draining", in_flight=self.flight.watermark.in_flight)
        since = self._gate.draining_since
        if since is None:
            return False
        quiet_s = now - max(since, self.flight.stored_at)
        if self.flight.messages.epoch is None or now - since > DRAIN_S or quiet_s > DRAIN_QUIET_S:
            return True
        return self._is_idle

    @property
    def _is_idle(self) -> bool:
        return self._intake.is_empty and not self.flight.watermark.in_flight

    def _update_snapshot(self, now: float) -> None:
        flight, pause, epoch = self.flight, self._gate.pause(now), self.flight.messages.epoch
        phase_now = phase(
            is_draining=self._gate.is_draining,
            is_recovering=epoch is None or self._gate.is_unknown,
            is_paused=pause is not None,
            is_idle=self._is_idle,
            is_troubled=bool(flight.progress.trouble),
        )
        if not self.threads.snapshot.is_due(phase_now, now):
            return
        self.tools.liveness.set_phase(phase_now)
        state = flight.progress.state(
            phase_now, epoch or 0, self._wire.received, flight.watermark, flight.ledger, pause, now
        )
        self.threads.snapshot.update(state, now)

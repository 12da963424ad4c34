"""One session: frames from the slot -> stages -> reports -> feedback to the slot.

Edge: joins the files named in docs/architecture.md and decides nothing. One thread runs the loop; it alone uses the
socket and the batches in flight. It waits only for the socket, for events of the stages and for the next deadline, so
feedback is sent in time whatever Redis, ClickHouse or a huge transaction do.

Source: docs/adr/0003-one-thread-owns-the-session.md
"""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from structlog.contextvars import bind_contextvars

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.capture.batching import Intake, Limits, Load, Piece
from outhaul.cdc_reader.capture.decode import Decoder
from outhaul.cdc_reader.capture.wire import Wire
from outhaul.cdc_reader.session.in_flight import Flight
from outhaul.cdc_reader.session.liveness import Liveness
from outhaul.cdc_reader.session.loop_events import (
    Begun,
    Decoded,
    Event,
    Events,
    Failed,
    Packed,
    RedisLost,
    Sent,
    TasksChecked,
    Trouble,
)
from outhaul.cdc_reader.session.pause import Gate, PauseRequest
from outhaul.cdc_reader.session.pause_requests import watch_requests
from outhaul.cdc_reader.session.reader_state import Progress, phase
from outhaul.cdc_reader.session.stages import (
    decode_pieces,
    persist,
    publish_state,
    receive_reports,
    send_batches,
    start,
)
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.report import Report

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from outhaul.cdc_reader.capture.dispatch import Dispatcher
    from outhaul.cdc_reader.postgres.slot import Link
    from outhaul.cdc_reader.session.recovery import Recovered
    from outhaul.sink.position import Lsn
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.reader")

# Seconds that a stopping reader waits for the batches in flight; the next reader streams the other rows again.
DRAIN_S = 30.0
# Seconds that it waits while no batch is stored: perhaps no worker runs.
DRAIN_QUIET_S = 5.0
_JOIN_S = 12.0
# Limit of packed batches in flight, in bytes, whatever the size of a batch: they are kept in memory.
MAX_IN_FLIGHT_BYTES = 96 << 20
_MAX_UNPACKED = 2
# The published state is at most this old, in seconds: making it at every turn would cost too much.
_SNAPSHOT_S = 0.5


@dataclass(frozen=True, slots=True)
class Tools:
    """The edges of a session, its clock (seconds, monotonic) and its source of randomness."""

    link: Link
    dispatcher: Dispatcher
    payloads: Payloads
    recover: Callable[[Callable[[float], None]], Recovered]
    pause_request: Callable[[], PauseRequest]
    random: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    liveness: Liveness = field(default_factory=Liveness)


class Session:
    """State of one streaming session. After every failure a new one is made, which begins with recovery."""

    def __init__(
        self, stream: Stream, tools: Tools, confirmed: Lsn, *, owner: str, binary: bool, status_interval_s: float
    ) -> None:
        """Prepare a session on a link that is started.

        Args:
            stream: what is streamed.
            tools: edges, clock and randomness.
            confirmed: position that the slot has confirmed.
            owner: random name of the session, the same that `tools.recover` uses.
            binary: whether tuples come in binary form.
            status_interval_s: longest time between two messages to Postgres, in seconds.
        """
        settings = stream.settings
        self.stream = stream
        self.tools = tools
        self.limits = Limits(
            settings.batch_max_rows, settings.batch_max_bytes, settings.linger_s, settings.max_in_flight
        )
        self.events = Events()
        self.progress = Progress({outbox.dead_letters_table for outbox in settings.outboxes()})
        self.flight = Flight(stream, self.progress, confirmed, owner, tools.clock)
        self.begun: Recovered | None = None
        self._decoder = Decoder(
            {outbox.table: outbox.clickhouse_table for outbox in settings.outboxes()},
            binary=binary,
            messages={stream.message_prefix: settings.clickhouse_table} if stream.message_prefix else {},
            first_ordinal=stream.first_ordinal,
        )
        self._intake = Intake(self.limits)
        self._gate = Gate()
        self._pieces: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._wire = Wire(tools.link, status_interval_s, settings.receive_timeout_s, tools.clock())
        self._draining_since: float | None = None
        self._snapshot = ""
        self._snapshot_at = float("-inf")

    def run(self, stopping: Callable[[], bool]) -> None:
        """Stream until told to stop, then drain.

        Raises:
            TransientError: the link or the epoch is lost; begin a new session.
            FatalError: an operator is needed.
            UnsupportedBinary: begin a new session with text tuples.
        """
        self._update_snapshot(self.tools.clock())
        self._threads.append(start("decode", self.events, self._recover_and_decode))
        self._threads.append(start("state", self.events, self._publish))
        self._threads.append(start("pause", self.events, self._watch_pause))
        try:
            while not self._done(stopping()):
                self._turn()
            self._wire.send_feedback(self.flight.watermark.confirmed, self.tools.clock())
        finally:
            self._close()

    def _turn(self) -> None:
        is_shut = self._draining or not self._gate.is_open(self.tools.clock())
        max_bytes, max_frames = (0, 0) if is_shut else self._intake.room()
        gather = not self._intake.is_empty
        self._wire.wait(self.events.fileno(), self._deadline(), self._intake.run, max_bytes, max_frames, gather=gather)
        now = self.tools.clock()
        if not gather:
            self._intake.begin(now)
        for event in self.events.take():
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
        in_flight = self.limits.max_in_flight if is_full else self.flight.watermark.in_flight
        return Load(in_flight, self._intake.lag_s, self._wire.is_busy(self.tools.clock()))

    def _pass_to_decoder(self, now: float) -> None:
        piece = self._intake.take_piece(self._load(), now, draining=self._draining)
        if piece is not None:
            self._pieces.put(piece)
            if piece.ends_batch:
                self.flight.watermark.add_group()

    def _handle(self, event: Event) -> None:
        match event:
            case Begun(recovered):
                self._begin(recovered)
            case Decoded():
                self._note_decoded(event)
            case Packed():
                self._register(event)
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
                self.progress.trouble.pop(where, None)
            case Trouble(where, error):
                self.progress.trouble[where] = str(error)
            case Failed(error):
                raise error

    def _note_decoded(self, decoded: Decoded) -> None:
        at_us = decoded.committed_at_us
        self._intake.decoded(None if at_us is None else time.time() - at_us / 1e6)
        self.progress.captured(decoded.rows, decoded.left_out, decoded.size)

    def _begin(self, recovered: Recovered) -> None:
        self.begun = recovered
        epoch, events = recovered.epoch, self.events
        metrics.SESSIONS.inc()
        bind_contextvars(epoch=epoch)
        tools, settings = self.tools, self.stream.settings
        self._threads.append(
            start(
                "send",
                events,
                lambda: send_batches(self.flight.to_send, events, epoch, tools.dispatcher, settings, tools.random),
            )
        )
        ledger, stream = self.flight.ledger, self.stream
        self._threads.append(
            start(
                "reports", events, lambda: receive_reports(events, tools.payloads, epoch, ledger, stream, tools.random)
            )
        )

    def _register(self, packed: Packed) -> None:
        if self.begun is None:
            raise FatalError("a piece was decoded before recovery was done", exit_code=Exit.STREAM_BROKEN)
        self.flight.add(packed, self.begun.epoch)

    def _done(self, stopping: bool) -> bool:
        now = self.tools.clock()
        if stopping and self._draining_since is None:
            self._draining_since = now
            log.info("draining", in_flight=self.flight.watermark.in_flight)
        if self._draining_since is None:
            return False
        quiet_s = now - max(self._draining_since, self.flight.stored_at)
        if self.begun is None or now - self._draining_since > DRAIN_S or quiet_s > DRAIN_QUIET_S:
            return True
        return self._is_idle

    @property
    def _is_idle(self) -> bool:
        return self._intake.is_empty and not self.flight.watermark.in_flight

    @property
    def _draining(self) -> bool:
        return self._draining_since is not None

    def _recover_and_decode(self) -> None:
        found: list[Recovered] = []
        events, settings, tools = self.events, self.stream.settings, self.tools
        begun_at = tools.clock()
        persist("recovery", events, settings, tools.random, lambda: found.append(tools.recover(events.wait)))
        metrics.RECOVERY.set(tools.clock() - begun_at)
        events.put(Begun(found[-1]))
        decode_pieces(self._pieces, events, found[-1], self._decoder, settings)

    def _publish(self) -> None:
        publish_state(self.events, self.tools.payloads, self.stream.fence, lambda: self._snapshot)

    def _watch_pause(self) -> None:
        watch_requests(self.events, self.tools.payloads, self.stream.fence, self.tools.pause_request)

    def _update_snapshot(self, now: float) -> None:
        if now - self._snapshot_at < _SNAPSHOT_S:
            return
        self._snapshot_at = now
        epoch = self.begun.epoch if self.begun else 0
        pause = self._gate.pause(now)
        phase_now = phase(
            is_draining=self._draining,
            is_recovering=self.begun is None or self._gate.is_unknown,
            is_paused=pause is not None,
            is_idle=self._is_idle,
            is_troubled=bool(self.progress.trouble),
        )
        self.tools.liveness.set_phase(phase_now)
        state = self.progress.state(
            phase_now, epoch, self._wire.received, self.flight.watermark, self.flight.ledger, pause, now
        )
        self._snapshot = state.to_json()

    def _close(self) -> None:
        self.events.over.set()
        self._pieces.put(None)
        self.flight.to_send.put(None)
        deadline = self.tools.clock() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - self.tools.clock()))
        if any(thread.is_alive() for thread in self._threads):
            log.warning("stages_still_running", threads=[thread.name for thread in self._threads if thread.is_alive()])
        else:
            self.events.close()

"""One session: frames from the slot -> stages -> reports -> feedback to the slot.

Edge: joins the files named in docs/architecture.md and decides nothing itself. One thread turns here and is the only one that
touches the socket, the watermark and the ledger; it waits for the socket, for events of the stages, or for the next deadline,
and for nothing else, so that feedback goes out in time whatever Redis, ClickHouse or a huge transaction are doing.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import structlog

from cdc_reader import metrics
from cdc_reader.batcher import Limits, Piece, decide_cut, due_at, is_full
from cdc_reader.decode import Decoder
from cdc_reader.frame import is_keepalive, parse_keepalive, standby_status, wal_end
from cdc_reader.ledger import Entry, Ledger, Phase
from cdc_reader.stages import (
    Begun,
    Decoded,
    Event,
    Events,
    Failed,
    Looked,
    RedisLost,
    Sent,
    Trouble,
    decode_pieces,
    hear_reports,
    persist,
    publish_state,
    send_batches,
    start,
)
from cdc_reader.state import ReaderState
from cdc_reader.watermark import Watermark
from sink.batch import Message, reader_key
from sink.errors import Exit, FatalError, TransientError
from sink.position import NO_LSN, Lsn
from sink.report import Outcome, Report

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from cdc_reader.dispatch import Dispatcher
    from cdc_reader.recovery import Recovered
    from cdc_reader.slot import Link
    from sink.payloads import Payloads
    from sink.settings import Settings

log = structlog.get_logger("outhaul.reader")

_POSTGRES_EPOCH_US = 946_684_800_000_000

# How long SIGTERM waits for what is in flight; whatever is not stored by then is streamed again by the next reader.
DRAIN_S = 30.0
_JOIN_S = 12.0
# The published state is at most this old, in seconds; making it at every turn would cost more than it tells.
_NOTE_S = 0.5
_GONE = select.POLLERR | select.POLLHUP | select.POLLRDHUP | select.POLLNVAL


@dataclass(frozen=True, slots=True)
class Tools:
    """The edges of a session, and clock (seconds, monotonic) and randomness."""

    link: Link
    dispatcher: Dispatcher
    payloads: Payloads
    recover: Callable[[Callable[[float], None]], Recovered]
    random: Callable[[], float]
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class Counts:
    """What a session has done."""

    captured: int = 0
    stored: int = 0
    left_out: int = 0
    dead_letters: int = 0
    last_stored_at: float | None = None


class Session:
    """State of one streaming session; made anew after every failure, since recovery is the one way back."""

    def __init__(
        self, settings: Settings, tools: Tools, confirmed: Lsn, *, owner: str, binary: bool, status_interval_s: float
    ) -> None:
        """Prepare a session on a link that has been started.

        Args:
            settings: the settings.
            tools: edges, clock and randomness.
            confirmed: position that the slot has confirmed.
            owner: random name of the session, the same that `tools.recover` uses.
            binary: whether tuples come in binary form.
            status_interval_s: longest time between two messages to Postgres.
        """
        self.settings = settings
        self.tools = tools
        self.owner = owner
        self.limits = Limits(
            settings.batch_max_rows, settings.batch_max_bytes, settings.linger_s, settings.max_in_flight
        )
        self.watermark = Watermark(confirmed)
        self.ledger = Ledger(settings.redispatch_s)
        self.events = Events()
        self.counts = Counts()
        self.begun: Recovered | None = None
        self.received = confirmed
        self.trouble: dict[str, str] = {}
        self._decoder = Decoder({settings.table: settings.clickhouse_table}, binary=binary)
        self._piece = Piece()
        self._pieces: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._batches: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._wire = _Wire(tools.link, status_interval_s, settings.receive_timeout_s, tools.clock())
        self._sequence = 0
        self._draining_since: float | None = None
        self._snapshot = ""
        self._noted_at = float("-inf")

    def run(self, stopping: Callable[[], bool]) -> None:
        """Stream until told to stop, then drain.

        Raises:
            TransientError: the link or the epoch is lost; begin a new session.
            FatalError: an operator is needed.
            UnsupportedBinary: begin a new session with text tuples.
        """
        self._note_state()
        self._threads.append(start("decode", self.events, self._recover_and_decode))
        self._threads.append(start("state", self.events, self._publish))
        try:
            while not self._done(stopping()):
                self._turn()
            self._wire.feedback(self.received, self.watermark.confirmed, self.tools.clock())
        finally:
            self._close()

    def _turn(self) -> None:
        reading = self._draining_since is None and not is_full(self._piece, self.limits)
        frames, size = self._wire.wait(
            self.events, self._deadline(reading=reading), self.limits.max_bytes if reading else 0
        )
        now = self.tools.clock()
        self._piece.add(frames, size, now)
        for frame in frames:
            if is_keepalive(frame) and parse_keepalive(frame).reply_requested:
                self._wire.reply_due = True
        if frames:
            last = frames[-1]
            end = parse_keepalive(last).wal_end if is_keepalive(last) else wal_end(last)
            self.received = max(self.received, end)
        for event in self.events.take():
            self._handle(event)
        self._hand_on(now)
        self._wire.keep_up(self.received, self.watermark.confirmed, now, listening=reading)
        self._note_state()

    def _deadline(self, *, reading: bool) -> float:
        cut = due_at(self._piece, self.limits, self.watermark.in_flight)
        if self.watermark.in_flight >= self.limits.max_in_flight or not reading:
            cut = float("inf")
        return min(cut, self._wire.due_at(), self.tools.clock() + 1.0)

    def _hand_on(self, now: float) -> None:
        due = decide_cut(self._piece, self.limits, self.watermark.in_flight, now)
        if due or (self._draining_since is not None and self._piece.frames):
            self.watermark.handed_on()
            self._pieces.put(self._piece.frames)
            self._piece = Piece()

    def _handle(self, event: Event) -> None:
        match event:
            case Begun(recovered):
                self._begin(recovered)
            case Decoded():
                self._register(event)
            case Sent(sequence):
                self.ledger.heard(sequence, Phase.SENT, self.tools.clock())
            case Looked(health):
                for sequence in self.ledger.decide_again(self.tools.clock(), health):
                    self._send_again(sequence, "silence")
            case Report():
                self._hear(event)
            case RedisLost():
                for sequence in self.ledger.on_their_way():
                    self._send_again(sequence, "redis")
            case Trouble(where, None):
                self.trouble.pop(where, None)
            case Trouble(where, error):
                self.trouble[where] = str(error)
            case Failed(error):
                raise error

    def _begin(self, recovered: Recovered) -> None:
        self.begun = recovered
        epoch, events = recovered.epoch, self.events
        metrics.SESSIONS.inc()
        tools, settings = self.tools, self.settings
        self._threads.append(
            start(
                "send",
                events,
                lambda: send_batches(self._batches, events, epoch, tools.dispatcher, settings, tools.random),
            )
        )
        begun = self.ledger.begun_tokens
        self._threads.append(
            start("hear", events, lambda: hear_reports(events, tools.payloads, epoch, begun, settings, tools.random))
        )

    def _register(self, decoded: Decoded) -> None:
        if self.begun is None:
            raise FatalError("a piece was decoded before recovery", exit_code=Exit.STREAM_BROKEN)
        first = self._sequence
        for assembled in decoded.batches:
            message = Message.of(
                assembled.batch,
                source=self.settings.source,
                epoch=self.begun.epoch,
                owner=self.owner,
                sequence=self._sequence,
                attempt=0,
            )
            self._sequence += 1
            self._batches.put(self.ledger.add(message, assembled))
        self.watermark.decoded(list(range(first, self._sequence)), decoded.safe_lsn)
        sent = sum(assembled.batch.rows for assembled in decoded.batches)
        self.counts.captured += decoded.rows
        self.counts.left_out += decoded.rows - sent
        metrics.CAPTURED.inc(decoded.rows)
        metrics.LEFT_OUT.inc(decoded.rows - sent)

    def _hear(self, report: Report) -> None:
        match report.outcome:
            case Outcome.STORED:
                self._settle(report)
            case Outcome.BEGUN:
                self.ledger.heard(report.sequence, Phase.BEGUN, self.tools.clock())
            case Outcome.RETRYING:
                self.ledger.heard(report.sequence, Phase.RETRYING, self.tools.clock(), report.wait_s)
                self.trouble["sink"] = report.error
            case Outcome.MISSING:
                self._send_again(report.sequence, "missing")
            case Outcome.STALE:
                raise TransientError("a newer reader has taken over this source")
            case Outcome.FATAL:
                raise FatalError(report.error, code=report.code, todo=report.todo, exit_code=Exit(report.exit_code))

    def _settle(self, report: Report) -> None:
        entry = self.ledger.settle(report.sequence, report.token)
        if entry is None:
            return
        self.watermark.stored(report.sequence)
        self.trouble.pop("sink", None)
        now_us = time.time_ns() // 1000
        metrics.COMMIT_TO_STORED.latencies.observe(np.maximum(now_us - entry.assembled.committed_at_us, 0) / 1e6)
        metrics.STORED.inc(entry.message.rows)
        metrics.BATCHES.inc()
        metrics.DEAD_LETTERS.inc(report.dead_letters)
        is_dead = entry.message.table == self.settings.dead_letters_table
        self.counts.stored += entry.message.rows
        self.counts.dead_letters += entry.message.rows if is_dead else report.dead_letters
        self.counts.last_stored_at = now_us / 1e6

    def _send_again(self, sequence: int, reason: str) -> None:
        entry = self.ledger.again(sequence)
        if entry is not None:
            metrics.REDISPATCHES.labels(reason).inc()
            log.warning(
                "sending_again", batch=sequence, token=entry.message.token, attempt=entry.message.attempt, reason=reason
            )
            self._batches.put(entry)

    def _done(self, stopping: bool) -> bool:
        now = self.tools.clock()
        if stopping and self._draining_since is None:
            self._draining_since = now
            log.info("draining", in_flight=self.watermark.in_flight)
        if self._draining_since is None:
            return False
        if self.begun is None or now - self._draining_since > DRAIN_S:
            return True
        return not self._piece.frames and not self.watermark.in_flight

    def _recover_and_decode(self) -> None:
        found: list[Recovered] = []
        events, settings, tools = self.events, self.settings, self.tools
        persist("recovery", events, settings, tools.random, lambda: found.append(tools.recover(events.wait)))
        events.put(Begun(found[-1]))
        decode_pieces(self._pieces, events, found[-1], self._decoder, settings)

    def _publish(self) -> None:
        publish_state(self.events, self.tools.payloads, reader_key(self.settings.source), lambda: self._snapshot)

    def _note_state(self) -> None:
        if self.tools.clock() - self._noted_at < _NOTE_S:
            return
        self._noted_at = self.tools.clock()
        oldest = self.ledger.oldest_commit_us()
        lag_s = max(0.0, time.time() - oldest / 1e6) if oldest is not None else 0.0
        metrics.IN_FLIGHT.set(self.watermark.in_flight)
        metrics.LAG_SECONDS.set(lag_s)
        metrics.LAG_BYTES.set(max(0, self.received - self.watermark.confirmed))
        p50, p99 = (metrics.COMMIT_TO_STORED.latencies.quantile(q) for q in (0.5, 0.99))
        self._snapshot = ReaderState(
            pid=os.getpid(),
            host=socket.gethostname(),
            phase=self._phase(),
            epoch=self.begun.epoch if self.begun else 0,
            received_lsn=str(self.received),
            confirmed_lsn=str(self.watermark.confirmed),
            in_flight_batches=self.watermark.in_flight,
            in_flight_rows=self.ledger.rows,
            in_flight_bytes=self.ledger.size,
            events_captured=self.counts.captured,
            events_stored=self.counts.stored,
            events_left_out=self.counts.left_out,
            dead_letters=self.counts.dead_letters,
            lag_s=round(lag_s, 3),
            p50_ms=None if p50 is None else round(p50 * 1000, 1),
            p99_ms=None if p99 is None else round(p99 * 1000, 1),
            last_stored_at=self.counts.last_stored_at,
            trouble="; ".join(self.trouble.values()),
        ).to_json()

    def _phase(self) -> str:
        if self._draining_since is not None:
            return "draining"
        if self.begun is None:
            return "recovering"
        return "waiting" if self.trouble else "streaming"

    def _close(self) -> None:
        self.events.over.set()
        self._pieces.put(None)
        self._batches.put(None)
        deadline = self.tools.clock() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - self.tools.clock()))
        if any(thread.is_alive() for thread in self._threads):
            log.warning("stages_still_running", threads=[thread.name for thread in self._threads if thread.is_alive()])
        else:
            self.events.close()


class _Wire:
    """The socket and its clocks: when to say something, when to worry."""

    def __init__(self, link: Link, status_interval_s: float, receive_timeout_s: float, now: float) -> None:
        self._link = link
        self._interval_s = status_interval_s
        self._timeout_s = receive_timeout_s
        self._heard_at = now
        self._said_at = float("-inf")
        self._asked = False
        self._said = NO_LSN
        self._more = False
        self.reply_due = False

    def due_at(self) -> float:
        """Return the clock at which the next feedback is due."""
        return self._said_at + self._interval_s

    def wait(self, events: Events, deadline: float, max_bytes: int) -> tuple[list[bytes], int]:
        """Wait for the socket, an event or the deadline; return the frames that came, none when `max_bytes` is 0."""
        poll = select.poll()
        poll.register(events.fileno(), select.POLLIN)
        want = select.POLLRDHUP | (select.POLLIN if max_bytes else 0) | (select.POLLOUT if self._link.unsent else 0)
        poll.register(self._link.fileno(), want)
        timeout_s = 0.0 if max_bytes and self._more else max(0.0, deadline - time.monotonic())
        ready = dict(poll.poll(timeout_s * 1000))
        flags = ready.get(self._link.fileno(), 0)
        if flags & select.POLLOUT:
            self._link.flush()
        if not max_bytes:
            if flags & _GONE:
                raise TransientError("Postgres closed the link", exit_code=Exit.POSTGRES_UNREACHABLE)
            return [], 0
        if not flags & (select.POLLIN | _GONE) and not self._more:
            return [], 0
        frames, size = self._link.read(max_bytes)
        self._more = size >= max_bytes
        if frames:
            self._heard_at, self._asked = time.monotonic(), False
        return frames, size

    def keep_up(self, received: Lsn, confirmed: Lsn, now: float, *, listening: bool) -> None:
        """Send feedback when it is due, asked for, or has news; ask for a sign of life, and give up after too long without."""
        if not listening:
            self._heard_at = max(self._heard_at, now - self._timeout_s / 2)
        silent_s = now - self._heard_at
        if silent_s > self._timeout_s:
            raise TransientError(f"Postgres has been silent for {silent_s:.0f} s", exit_code=Exit.POSTGRES_UNREACHABLE)
        ask = listening and not self._asked and silent_s > self._timeout_s / 2
        if ask or self.reply_due or confirmed > self._said or now >= self.due_at():
            self.feedback(received, confirmed, now, ask=ask)

    def feedback(self, received: Lsn, confirmed: Lsn, now: float, *, ask: bool = False) -> None:
        """Tell Postgres what was received and what is stored."""
        clock_us = time.time_ns() // 1000 - _POSTGRES_EPOCH_US
        self._link.send(standby_status(received, confirmed, confirmed, clock_us, ask))
        self._said_at, self._said, self.reply_due = now, confirmed, False
        self._asked = self._asked or ask

"""Stages of a session -> threads that run them beside the loop, until the session ends.

Edge: threads. The loop must answer Postgres in time, so it waits only for its socket and its events. What waits for
Redis or ClickHouse, or computes for long, has a thread: recovery and then decoding, sending, receiving reports,
publishing the state, watching pause requests, filling views. An exception in a thread becomes an event for the loop.

Source: docs/adr/0003-one-thread-owns-the-session.md
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.session.fill_views import keep_views_filled
from outhaul.cdc_reader.session.liveness import Liveness
from outhaul.cdc_reader.session.loop_events import Begun, Events, Failed, SessionOverError
from outhaul.cdc_reader.session.pause_requests import watch_requests
from outhaul.cdc_reader.session.reader_state import Snapshot
from outhaul.cdc_reader.session.stages import decode_pieces, persist, publish_state, receive_reports, send_batches
from outhaul.cdc_reader.session.view_watch import ViewWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.capture.batching import Piece
    from outhaul.cdc_reader.capture.decode import Decoder
    from outhaul.cdc_reader.capture.dispatch import Dispatcher
    from outhaul.cdc_reader.postgres.slot import Link
    from outhaul.cdc_reader.session.in_flight import Flight
    from outhaul.cdc_reader.session.pause import PauseRequest
    from outhaul.cdc_reader.session.recovery import Recovered
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Stream
    from outhaul.sink.view_check import Flaw

log = structlog.get_logger("outhaul.reader")

JOIN_S = 12.0


@dataclass(frozen=True, slots=True)
class Tools:
    """The edges of a session, its clock (seconds, monotonic) and its source of randomness."""

    link: Link
    dispatcher: Dispatcher
    payloads: Payloads
    recover: Callable[[Callable[[float], None]], Recovered]
    pause_request: Callable[[], PauseRequest]
    fill_views: Callable[[int], None]
    view_flaws: Callable[[], tuple[Flaw, ...]]
    random: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    liveness: Liveness = field(default_factory=Liveness)


class Threads:
    """The threads of one session, and what they share with the loop: events, pieces to decode, the state to publish."""

    def __init__(self, stream: Stream, tools: Tools, decoder: Decoder) -> None:
        """Start no thread yet."""
        self.events = Events()
        self.pieces: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self.snapshot = Snapshot()
        self._stream = stream
        self._tools = tools
        self._decoder = decoder
        self._running: list[threading.Thread] = []

    def begin(self) -> None:
        """Start to recover and decode, to publish the state, and to watch pause requests."""
        self._start("decode", self._recover_and_decode)
        self._start("state", self._publish_state)
        self._start("pause", self._watch_pause)

    def begin_sending(self, flight: Flight, epoch: int) -> None:
        """Start to send batches and to receive reports; recovery is done."""
        events, tools, stream = self.events, self._tools, self._stream
        settings, random = stream.settings, tools.random
        self._start("send", lambda: send_batches(flight.to_send, events, epoch, tools.dispatcher, settings, random))
        self._start("views", lambda: keep_views_filled(events, lambda: tools.fill_views(epoch)))
        self._start("reports", lambda: receive_reports(events, tools.payloads, epoch, flight.ledger, stream, random))

    def end(self, flight: Flight) -> None:
        """Tell all threads to end, and wait for them."""
        self.events.over.set()
        self.snapshot.wake()
        self.pieces.put(None)
        flight.to_send.put(None)
        deadline = self._tools.clock() + JOIN_S
        for thread in self._running:
            thread.join(max(0.0, deadline - self._tools.clock()))
        if still_running := [thread.name for thread in self._running if thread.is_alive()]:
            log.warning("stages_still_running", threads=still_running)
        else:
            self.events.close()

    def _start(self, name: str, stage: Callable[[], None]) -> None:
        """Run a stage in a thread; an exception in it becomes the event `Failed`."""

        def guarded() -> None:
            try:
                stage()
            except SessionOverError:
                pass
            except Exception as error:  # noqa: BLE001 - the outermost line of a thread
                self.events.put(Failed(error))

        # A copy of the log context, so that the stage's log lines have the fields of the session.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(guarded,), name=f"outhaul-{name}", daemon=True)
        thread.start()
        self._running.append(thread)

    def _recover_and_decode(self) -> None:
        found: list[Recovered] = []
        events, settings, tools = self.events, self._stream.settings, self._tools
        begun_at = tools.clock()
        persist("recovery", events, settings, tools.random, lambda: found.append(tools.recover(events.wait)))
        metrics.RECOVERY.set(tools.clock() - begun_at)
        events.put(Begun(found[-1]))
        decode_pieces(self.pieces, events, found[-1], self._decoder, settings)

    def _publish_state(self) -> None:
        publish_state(self.events, self._tools.payloads, self._stream.fence, self.snapshot)

    def _watch_pause(self) -> None:
        views = ViewWatch(self._tools.view_flaws, self._tools.clock)
        watch_requests(
            self.events, self._tools.payloads, self._stream.fence, self._tools.pause_request, views.look_if_due
        )

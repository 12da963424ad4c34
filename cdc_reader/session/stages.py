"""Threads beside the loop: pieces -> batches, batches -> broker, reports -> loop.

Edge: threads and queues, one function each, no decisions. Each runs until it is told to stop, and hands every
exception to the loop as an event. The loop never waits for any of them, so feedback to Postgres goes out whatever
they are doing.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.capture.assemble import assembly_for
from outhaul.cdc_reader.session.loop_events import (
    Decoded,
    Events,
    Failed,
    Looked,
    Packed,
    RedisLost,
    Sent,
    SessionOverError,
    Trouble,
)
from outhaul.cdc_reader.session.reader_state import TTL_S
from outhaul.cdc_reader.session.reports import look_for_tasks, read_reports
from outhaul.sink.backoff import backoff_s
from outhaul.sink.errors import TransientError
from outhaul.sink.redis_keys import epoch_key, reader_key, reconnecting_key, stored_key
from outhaul.sink.seal import seal_of
from outhaul.sink.telemetry import log_context, sentry

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable

    from outhaul.cdc_reader.capture.batching import Piece
    from outhaul.cdc_reader.capture.decode import Decoded as DecodedPiece
    from outhaul.cdc_reader.capture.decode import Decoder
    from outhaul.cdc_reader.capture.dispatch import Dispatcher
    from outhaul.cdc_reader.session.ledger import Entry, Ledger
    from outhaul.cdc_reader.session.recovery import Recovered
    from outhaul.sink.position import Lsn
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings, Stream

log = structlog.get_logger("outhaul.reader")


def start(name: str, events: Events, run: Callable[[], None]) -> threading.Thread:
    """Run a stage in a thread; whatever it raises becomes an event."""

    def guarded() -> None:
        try:
            run()
        except SessionOverError:
            pass
        except Exception as error:  # noqa: BLE001 - the outermost line of a thread
            events.put(Failed(error))

    # A copy of what is known here, so that the stage's lines say of which session they are.
    known = contextvars.copy_context()
    thread = threading.Thread(target=known.run, args=(guarded,), name=f"outhaul-{name}", daemon=True)
    thread.start()
    return thread


def persist(
    where: str, events: Events, settings: Settings, random: Callable[[], float], act: Callable[[], None]
) -> None:
    """Do something until it works: a transient error waits and repeats, for as long as it takes.

    Raises:
        SessionOverError: the session ends meanwhile.
        PipelineError: an error of another kind.
    """
    attempt = 0
    while True:
        try:
            act()
        except TransientError as error:
            attempt += 1
            metrics.RETRIES.labels(where).inc()
            wait_s = backoff_s(attempt, max_s=settings.retry_max_s, random=random())
            log.warning("retrying", where=where, attempts=attempt, wait_s=round(wait_s, 2), error=error)
            sentry.repeated(error)
            events.put(Trouble(where, error))
            events.wait(wait_s)
        else:
            if attempt:
                sentry.over()
                events.put(Trouble(where, None))
            return


def decode_pieces(
    inbox: queue.SimpleQueue[Piece | None],
    events: Events,
    recovered: Recovered,
    decoder: Decoder,
    settings: Settings,
) -> None:
    """Turn pieces into batches, in order, until None comes."""
    assemblies = {
        outbox.clickhouse_table: assembly_for(outbox, recovered.held[outbox.clickhouse_table])
        for outbox in settings.outboxes()
    }
    safe_lsn: Lsn | None = None
    while (piece := inbox.get()) is not None:
        begun_at, size = time.monotonic(), len(piece.run.data)
        decoded = decoder.decode([piece.run.data], piece.run.lengths)
        decoded_at = time.monotonic()
        _note_capture(decoded, decoded_at - begun_at)
        safe_lsn = decoded.safe_lsn or safe_lsn
        if decoded.stray_messages:
            metrics.STRAY_MESSAGES.inc(decoded.stray_messages)
            log.warning("messages_ignored", messages=decoded.stray_messages, reason="not transactional")
        left_out = sum(assemblies[segment.table].add(segment) for segment in decoded.segments)
        events.put(Decoded(sum(map(len, decoded.segments)), left_out, size, _last_commit_us(decoded)))
        ends_batch = piece.ends_batch
        # Frames and columns are large; they must be free before the next piece is waited for.
        del piece, decoded
        if ends_batch:
            events.put(Packed([one for assembly in assemblies.values() for one in assembly.finish()], safe_lsn))
            safe_lsn = None
        metrics.PACK_S.inc(time.monotonic() - decoded_at)


def _note_capture(decoded: DecodedPiece, seconds: float) -> None:
    metrics.DECODE_S.inc(seconds)
    now_us = time.time_ns() // 1000
    for segment in decoded.segments:
        metrics.COMMIT_TO_CAPTURE.latencies.observe(segment.committed_at_us, now_us)


def _last_commit_us(decoded: DecodedPiece) -> int | None:
    return int(decoded.segments[-1].committed_at_us[-1]) if decoded.segments else None


def send_batches(
    inbox: queue.SimpleQueue[Entry | None],
    events: Events,
    epoch: int,
    dispatcher: Dispatcher,
    settings: Settings,
    random: Callable[[], float],
) -> None:
    """Send batches, in order, until None comes; a Redis that does not answer is waited for."""
    persist("dispatch", events, settings, random, lambda: dispatcher.announce_epoch(epoch))
    while (entry := inbox.get()) is not None:
        batch, begun_at = entry, time.monotonic()
        log_context.bind(batch.message)
        persist("dispatch", events, settings, random, lambda: dispatcher.send(batch.message, batch.assembled))  # noqa: B023 - called before the next turn
        metrics.DISPATCH_S.inc(time.monotonic() - begun_at)
        log.debug("batch_sent", rows=entry.message.rows, attempt=entry.message.attempt)
        events.put(Sent(entry.message.sequence))
        del entry, batch


def hear_reports(
    events: Events,
    payloads: Payloads,
    epoch: int,
    ledger: Ledger,
    stream: Stream,
    random: Callable[[], float],
) -> None:
    """Listen for reports; look once a second for signs of life, and whether Redis still knows the epoch."""
    attempt = 0
    looked_at = time.monotonic()
    key, seal = stored_key(stream.fence, epoch), seal_of(stream.settings)
    while not events.over.is_set():
        try:
            for report in read_reports(payloads, seal, key):
                events.put(report)
            if not attempt and time.monotonic() - looked_at < 1:
                continue
            looked_at = time.monotonic()
            _look(events, payloads, epoch, ledger, stream, was_away=attempt > 0)
            if attempt:
                attempt = 0
                sentry.over()
                events.put(Trouble("reports", None))
        except TransientError as error:
            attempt += 1
            metrics.RETRIES.labels("reports").inc()
            wait_s = backoff_s(attempt, max_s=stream.settings.retry_max_s, random=random())
            log.warning("retrying", where="reports", attempts=attempt, wait_s=round(wait_s, 2), error=error)
            sentry.repeated(error)
            events.put(Trouble("reports", error))
            events.wait(wait_s)


def _look(events: Events, payloads: Payloads, epoch: int, ledger: Ledger, stream: Stream, *, was_away: bool) -> None:
    mirror = epoch_key(stream.fence)
    forgotten = payloads.text(mirror) is None
    if forgotten:
        payloads.set(mirror, str(epoch))
    if forgotten or was_away:
        events.put(RedisLost())
    else:
        events.put(Looked(look_for_tasks(payloads, stream.settings, ledger.begun_tokens)))


def publish_state(events: Events, payloads: Payloads, fence: str, snapshot: Callable[[], str]) -> None:
    """Publish the reader's state once a second; where Redis does not take it, the other stages have said so."""
    outdated = [reconnecting_key(fence)]
    while True:
        with contextlib.suppress(TransientError):
            payloads.set(reader_key(fence), snapshot(), ttl_s=TTL_S)
            # Why the session before this one ended must not be told when this one falls silent.
            payloads.drop(outdated)
            outdated = []
        events.wait(1.0)

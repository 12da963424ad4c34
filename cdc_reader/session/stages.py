"""What runs beside the loop of a session: pieces -> batches, batches -> broker, reports -> loop, state -> Redis.

Edge: Redis and queues; one function for each stage, without decisions. Each runs in a thread until the session ends
(cdc_reader/session/threads.py).

Source: docs/adr/0003-one-thread-owns-the-session.md
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.capture.assemble import assembly_for
from outhaul.cdc_reader.capture.log_match import LogMatch
from outhaul.cdc_reader.session.loop_events import (
    Events,
    Packed,
    PieceDecoded,
    RedisLost,
    Sent,
    TasksChecked,
    Trouble,
)
from outhaul.cdc_reader.session.reader_state import TTL_S
from outhaul.cdc_reader.session.recovery import WAS_SET_BACK
from outhaul.cdc_reader.session.reports import check_tasks, read_reports
from outhaul.sink.backoff import backoff_s
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.fence import EpochOverError
from outhaul.sink.position import NO_LSN
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
    from outhaul.cdc_reader.session.reader_state import Snapshot
    from outhaul.cdc_reader.session.recovery import Recovered
    from outhaul.sink.position import Lsn
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings, Stream

log = structlog.get_logger("outhaul.reader")


def persist(
    where: str, events: Events, settings: Settings, random: Callable[[], float], act: Callable[[], None]
) -> None:
    """Call `act` until it succeeds; after a transient error, wait and repeat, without a limit.

    Raises:
        SessionOverError: the session ended meanwhile.
        EpochOverError: another reader may have taken over; only a new session finds out.
        PipelineError: an error of another kind.
    """
    attempt = 0
    while True:
        try:
            act()
        except EpochOverError:
            raise
        except TransientError as error:
            attempt += 1
            metrics.RETRIES.labels(where).inc()
            wait_s = backoff_s(attempt, max_s=settings.retry_max_s, random=random())
            log.warning("retrying", where=where, attempts=attempt, wait_s=round(wait_s, 2), error=error)
            sentry.note_retry(error)
            events.put(Trouble(where, error))
            events.wait(wait_s)
        else:
            if attempt:
                sentry.recovered()
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
    matches = {table: LogMatch(held) for table, held in recovered.held.items()}
    safe_lsn: Lsn | None = None
    while (piece := inbox.get()) is not None:
        begun_at, size = time.monotonic(), len(piece.run.data)
        decoded = decoder.decode([piece.run.data], piece.run.lengths)
        decoded_at = time.monotonic()
        _note_capture(decoded, decoded_at - begun_at)
        safe_lsn = decoded.safe_lsn or safe_lsn
        for table, match in matches.items():
            check_match(table, match, decoded)
        if decoded.stray_messages:
            metrics.STRAY_MESSAGES.inc(decoded.stray_messages)
            log.warning("messages_ignored", messages=decoded.stray_messages, reason="not transactional")
        left_out = sum(assemblies[segment.table].add(segment) for segment in decoded.segments)
        events.put(PieceDecoded(sum(map(len, decoded.segments)), left_out, size, _last_commit_us(decoded)))
        ends_batch = piece.ends_batch
        # Frames and columns are large: free them before waiting for the next piece.
        del piece, decoded
        if ends_batch:
            events.put(Packed([one for assembly in assemblies.values() for one in assembly.finish()], safe_lsn))
            safe_lsn = None
        metrics.PACK_S.inc(time.monotonic() - decoded_at)


def check_match(table: str, match: LogMatch, decoded: DecodedPiece) -> None:
    """Check that the log has each stored position of a table that it has passed.

    Raises:
        FatalError: it lacks one.
    """
    brought = [segment.lsn for segment in decoded.segments if segment.table == table]
    if lacking := match.first_lacking(brought, decoded.safe_lsn or NO_LSN):
        raise FatalError(
            f"ClickHouse has events in {table!r} at {lacking}, where the log of this server has none: the server was "
            "set back, as by a snapshot of its disk, and has written other events since",
            todo=WAS_SET_BACK,
            exit_code=Exit.OTHER_HISTORY,
        )


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
    """Send batches, in order, until None comes; wait while Redis does not answer."""
    persist("dispatch", events, settings, random, lambda: dispatcher.announce_epoch(epoch))
    while (entry := inbox.get()) is not None:
        batch, begun_at = entry, time.monotonic()
        log_context.bind(batch.message)
        persist("dispatch", events, settings, random, lambda: dispatcher.send(batch.message, batch.assembled))  # noqa: B023 - called before the next turn
        metrics.DISPATCH_S.inc(time.monotonic() - begun_at)
        log.debug("batch_sent", rows=entry.message.rows, attempt=entry.message.attempt)
        events.put(Sent(entry.message.sequence))
        del entry, batch


def receive_reports(
    events: Events,
    payloads: Payloads,
    epoch: int,
    ledger: Ledger,
    stream: Stream,
    random: Callable[[], float],
) -> None:
    """Receive reports; once a second, check the tasks' signs of life, and whether Redis still has the epoch."""
    attempt = 0
    checked_at = time.monotonic()
    key, seal = stored_key(stream.fence, epoch), seal_of(stream.settings)
    while not events.over.is_set():
        try:
            for report in read_reports(payloads, seal, key):
                events.put(report)
            if not attempt and time.monotonic() - checked_at < 1:
                continue
            checked_at = time.monotonic()
            _check_redis(events, payloads, epoch, ledger, stream, was_unreachable=attempt > 0)
            if attempt:
                attempt = 0
                sentry.recovered()
                events.put(Trouble("reports", None))
        except TransientError as error:
            attempt += 1
            metrics.RETRIES.labels("reports").inc()
            wait_s = backoff_s(attempt, max_s=stream.settings.retry_max_s, random=random())
            log.warning("retrying", where="reports", attempts=attempt, wait_s=round(wait_s, 2), error=error)
            sentry.note_retry(error)
            events.put(Trouble("reports", error))
            events.wait(wait_s)


def _check_redis(
    events: Events, payloads: Payloads, epoch: int, ledger: Ledger, stream: Stream, *, was_unreachable: bool
) -> None:
    mirror = epoch_key(stream.fence)
    is_lost = payloads.text(mirror) is None
    if is_lost:
        payloads.set(mirror, str(epoch))
    if is_lost or was_unreachable:
        events.put(RedisLost())
    else:
        events.put(TasksChecked(check_tasks(payloads, stream.settings, ledger.begun_tokens)))


def publish_state(events: Events, payloads: Payloads, fence: str, snapshot: Snapshot) -> None:
    """Publish the reader's state once a second, and at once when its phase changes.

    If Redis does not answer, other stages log it.
    """
    outdated = [reconnecting_key(fence)]
    while True:
        with contextlib.suppress(TransientError):
            if snapshot.is_fresh(time.monotonic()):
                payloads.set(reader_key(fence), snapshot.text, ttl_s=TTL_S)
            # If this session falls silent, `outhaul status` must not show why the earlier session ended.
            payloads.drop(outdated)
            outdated = []
        snapshot.wait(1.0)
        events.wait(0.0)

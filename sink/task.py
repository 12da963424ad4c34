"""Celery message -> payload from Redis, stored in ClickHouse; outcome -> report to the reader.

Edge: Celery, Redis and ClickHouse. The task does no work per row. It checks that the payload is the announced one,
inserts it into ClickHouse, and reports the outcome. The kind of an error alone decides what the task does about it.

Source: https://docs.celeryq.dev/en/stable/userguide/tasks.html
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Any

import structlog
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.process import current_process
from celery import shared_task

from outhaul.sink import schema
from outhaul.sink.backoff import backoff_s
from outhaul.sink.batch import Message
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.clickhouse_errors import is_thrown
from outhaul.sink.errors import (
    Exit,
    FatalError,
    ForeignMessageError,
    PipelineError,
    PoisonError,
    TooLargeError,
    TransientError,
)
from outhaul.sink.failpoint import reach
from outhaul.sink.fence import EpochOverError, as_owner, guard
from outhaul.sink.insert import Target, batch_number, insert
from outhaul.sink.message_version import BatchAddress, OtherVersionError
from outhaul.sink.position import parse_position
from outhaul.sink.quarantine import set_aside
from outhaul.sink.redis.payloads import ALIVE_S, Payloads
from outhaul.sink.redis_keys import alive_key, epoch_key, stored_key
from outhaul.sink.replicas import find_servers
from outhaul.sink.report import Outcome, Report
from outhaul.sink.seal import ForgedMessageError, Seal, seal_of
from outhaul.sink.task_names import WRITE_BATCH
from outhaul.sink.telemetry import log_context, metrics, sentry, unexpected
from outhaul.sink.telemetry.sentry import trace
from outhaul.sink.view_gaps import StoredBatch, ViewFeed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from outhaul.sink.app import SinkApp
    from outhaul.sink.insert import Contents
    from outhaul.sink.settings import Outbox, Settings

log = structlog.get_logger("outhaul.sink")

_random = SystemRandom().random

# A lost report costs a second dispatch of the batch, so the task tries several times. Meanwhile the reader's timeout
# for the batch runs.
_REPORT_ATTEMPTS = 5

# An epoch has 64 bits; no reader writes a longer number.
_MAX_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Sink:
    """Settings and connections of a worker process for its tasks."""

    settings: Settings
    clickhouse: ClickHouse
    payloads: Payloads

    @property
    def seal(self) -> Seal:
        """Seal of the pipeline's messages."""
        return seal_of(self.settings)


def open_sink(settings: Settings) -> Sink:
    """Return the clients of a worker process for ClickHouse and Redis; they connect at their first use."""
    # The client's timeout is longer than the server's, so the client receives the server's timeout error.
    clickhouse = ClickHouse.of(settings, timeout_s=settings.insert_timeout_s + 5)
    return Sink(settings, clickhouse, Payloads.of(settings))


_opened: dict[int, Sink] = {}


def sink_of(app: SinkApp) -> Sink:
    """Return this process's `Sink` for an app; the first call makes it."""
    if id(app) not in _opened:
        _opened[id(app)] = open_sink(app.settings)
    return _opened[id(app)]


# The task logs and reports its PipelineErrors itself; with `throws`, Celery prints no traceback for them.
@shared_task(name=WRITE_BATCH, bind=True, max_retries=None, throws=(PipelineError,))  # type: ignore[untyped-decorator] # celery has no types
def write_batch(self: Any, *arguments: object, **named: object) -> str:
    """Store one batch and report the outcome; drop a message that no reader of this pipeline has sent.

    Args:
        self: the task, for its number of retries.
        arguments: one `outhaul.sink.batch.Message` as JSON; other arguments are refused.
        named: must be empty.

    Raises:
        FatalError: an operator is needed; the task has reported this, and the reader stops.
        celery.exceptions.Retry: a transient error; Celery delivers the same message again.
    """
    try:
        return _write_batch(self, arguments, named)
    except Exception as error:
        if not unexpected.is_unexpected(error):
            raise
        log.exception("task_failed")
        failed = unexpected_failure(error)
        _report_failed(self.app, arguments, failed)
        raise failed from None


def unexpected_failure(error: Exception) -> FatalError:
    """Return the error that an exception becomes of which nobody has said what to do about it."""
    return FatalError(
        f"the worker on {socket.gethostname()} failed unexpectedly: {unexpected.first_line(error)}",
        todo="The worker's log has the traceback. Mend the cause, and start the reader again",
    )


def _report_failed(app: SinkApp, arguments: Sequence[object], failed: FatalError) -> None:
    """Report an unexpected failure to the reader of the batch; of a message that no reader sent, nobody gets one."""
    # What failed may fail again. Then the reader sends the batch again after a while, and `status` shows the failure.
    with suppress(Exception):
        sink = sink_of(app)
        opened = sink.seal.opened(WRITE_BATCH, arguments[0])
        address = BatchAddress.found_in(opened, sink.settings.source)
        if address is not None:
            fatal = Report(Outcome.FATAL, address.token, address.sequence, error=failed.message, todo=failed.todo)
            _report(sink, address, fatal)


def _write_batch(self: Any, arguments: Sequence[object], named: Mapping[str, object]) -> str:
    sink = sink_of(self.app)
    started = time.monotonic()
    try:
        message = accept(sink.settings, arguments, named)
    except OtherVersionError as error:
        return _refuse_version(sink, arguments[0], error)
    except ForeignMessageError as error:
        return _refuse(error)
    log_context.bind(message)
    trace.begun(message)
    try:
        _report(sink, message, Report(Outcome.BEGUN, message.token, message.sequence))
        reach("task.begun")
        with alive(sink, message), ending_if_refused():
            report = write(sink, message, again=_may_have_died(self.request))
    except (TransientError, SoftTimeLimitExceeded) as error:
        attempts = self.request.retries + 1
        wait_s = backoff_s(attempts, max_s=sink.settings.retry_max_s, random=_random())
        metrics.retried(error)
        log.warning("batch_retrying", rows=message.rows, attempts=attempts, wait_s=round(wait_s, 2), error=error)
        sentry.note_retry(error)
        _report(
            sink, message, Report(Outcome.RETRYING, message.token, message.sequence, error=str(error), wait_s=wait_s)
        )
        raise self.retry(exc=error, countdown=wait_s, argsrepr=message.summary) from None
    except ForeignMessageError as error:
        return _refuse(error)
    except FatalError as error:
        metrics.failed(error)
        log.error("batch_failed", rows=message.rows, error=error)  # noqa: TRY400 - the line is the message
        sentry.report_now(error)
        fatal = Report(
            Outcome.FATAL,
            message.token,
            message.sequence,
            error=error.message,
            todo=error.todo,
            exit_code=error.exit_code,
            code=error.code,
        )
        _report(sink, message, fatal)
        raise
    seconds = time.monotonic() - started
    metrics.finished(message, report, seconds)
    counts = {"dead_letters": report.dead_letters, "seconds": round(seconds, 4)}
    log.info("batch_done", outcome=report.outcome.value, rows=message.rows, **counts)
    sentry.recovered()
    reach("task.stored")
    _report(sink, message, report)
    reach("task.reported")
    return report.outcome.value


def accept(settings: Settings, arguments: Sequence[object], named: Mapping[str, object]) -> Message:
    """Check the arguments of a task, and return its message.

    Raises:
        OtherVersionError: they are one message of a reader whose release this worker cannot read.
        ForeignMessageError: they are not one message of a reader of this pipeline.
    """
    if len(arguments) != 1 or named:
        raise ForeignMessageError("a task with unexpected arguments was received")
    message = Message.from_json(seal_of(settings).opened(WRITE_BATCH, arguments[0]), settings.clickhouse_table)
    outbox = outbox_of(settings, message.branch)
    message.check_addressed(
        settings.source, schema.batch_tables(outbox), never=schema.table_names(settings, settings.outboxes())
    )
    return message


def outbox_of(settings: Settings, table: str) -> Outbox:
    """Return the outbox whose events go to this table.

    Raises:
        ForeignMessageError: no outbox of this worker has this table.
    """
    outbox = settings.outbox_into(table)
    if outbox is None:
        raise ForeignMessageError(
            f"a message for the table {table!r} was received, but no outbox of this worker has this table",
            todo="Give reader and workers the same OUTHAUL_CLICKHOUSE_TABLE and OUTHAUL_MORE_TABLES",
        )
    return outbox


def _refuse(error: ForeignMessageError) -> str:
    # The sender is unknown, so no reader gets a report: a message from a stranger must not be able to stop a reader.
    metrics.refused("forged" if isinstance(error, ForgedMessageError) else "refused")
    log.warning("message_refused", error=error)
    return "refused"


def _refuse_version(sink: Sink, message: object, error: OtherVersionError) -> str:
    """Report the refusal; the seal was valid. The reader sends the batch again until a worker can read the message."""
    metrics.refused(Outcome.OTHER_VERSION.value)
    address = BatchAddress.found_in(message, sink.settings.source)
    log.warning("message_refused", error=error, token=address.token if address else None)
    if address is not None:
        outcome = Outcome.OTHER_VERSION
        _report(sink, address, Report(outcome, address.token, address.sequence, error=error.message, todo=error.todo))
    return Outcome.OTHER_VERSION.value


@contextmanager
def alive(sink: Sink, message: Message) -> Iterator[None]:
    """Renew the batch's liveness key during the block, in a thread, since the block may wait for ClickHouse."""
    ended = threading.Event()
    key = alive_key(message.source, message.token)

    def renew() -> None:
        while not ended.wait(ALIVE_S / 3):
            # If Redis does not answer, the key expires and the reader sends the batch again, which is harmless.
            with suppress(TransientError):
                sink.payloads.renew(key)

    thread = threading.Thread(target=renew, name="outhaul-alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def ending_if_refused() -> Iterator[None]:
    """End this worker if a server refuses its login in the block: its password may have been changed.

    A worker reads secrets when it starts. The watchdog checks the login before it starts the next one, and ends if the
    login is still refused; its supervisor then starts it with a new environment.

    Raises:
        TransientError: the login is refused; another worker may repeat the operation.
    """
    try:
        yield
    except FatalError as error:
        if error.exit_code not in {Exit.CLICKHOUSE_LOGIN, Exit.POSTGRES_LOGIN, Exit.REDIS_LOGIN}:
            raise
        # SIGTERM to Celery's main process: it takes no further message, and waits for its tasks.
        os.kill(os.getppid() if getattr(current_process(), "index", None) is not None else os.getpid(), signal.SIGTERM)
        raise TransientError(error.message, code=error.code, todo=error.todo, exit_code=error.exit_code) from error


def _may_have_died(request: Any) -> bool:
    return bool(request.retries or (request.delivery_info or {}).get("redelivered"))


def write(sink: Sink, message: Message, *, again: bool = False) -> Report:
    """Store one batch; return its outcome.

    Args:
        sink: settings and connections.
        message: the batch.
        again: whether an earlier run of this task may have died. If the batch was dispatched before, an earlier
            dispatch's task may have died, too; `write` sees this in the message.

    Raises:
        TransientError: repeat the same operation.
        ForeignMessageError: the payload is the announced one, but no reader makes such a payload.
        FatalError: an operator is needed.
    """
    begun_at = time.monotonic()
    with trace.span("db.redis", "payload"):
        mirror, payload = sink.payloads.get_with_text(
            epoch_key(message.fence), message.payload_key, max_bytes=message.size_bytes
        )
    metrics.fetched(time.monotonic() - begun_at)
    if _superseded(message, mirror):
        return Report(Outcome.STALE, message.token, message.sequence)
    if payload is None or not message.announces(payload):
        return Report(Outcome.MISSING, message.token, message.sequence)
    reach("task.fetched")

    outbox = outbox_of(sink.settings, message.branch)
    events, letters = schema.batch_tables(outbox)
    again = again or message.attempt > 0
    # A copy into a table of another name is compared with that table, not with the event table. Both tables are
    # compared for every part. So a retry after a timeout does not try again the rows that an earlier attempt has set
    # aside, and makes progress. And a row that another task of this batch has stored is not set aside.
    table = events if message.table == letters else message.table
    servers = partial(find_servers, sink.clickhouse, sink.settings, table)
    target = Target(
        table,
        letters,
        outbox.view_gaps_table,
        guard(sink.settings),
        sink.settings.insert_timeout_s,
        servers=servers,
    )

    def store(part: Message, rows: bytes) -> None:
        with trace.span("db.insert", f"INSERT INTO {part.table}", db__system="clickhouse", rows=part.rows):
            if part.table == letters:
                insert(sink.clickhouse, part, rows, target, again=again)
            else:
                store_events(sink.clickhouse, outbox, part, rows, target, again=again)

    aside = 0
    try:
        with as_owner(sink.clickhouse, sink.settings, message.lane, message.epoch, message.owner):
            try:
                store(message, payload)
            except PoisonError as error:
                aside = set_aside(message, payload, store, dead_letters=letters, refused=error)
                if isinstance(error, TooLargeError):
                    log.warning("batch_divided", rows=message.rows, error=error)
                if aside or not isinstance(error, TooLargeError):
                    log.warning("rows_set_aside", rows=aside, code=error.code)
                    sentry.report_set_aside(error, aside)
    except EpochOverError as error:
        return Report(Outcome.STALE, message.token, message.sequence, error=str(error))
    except PoisonError as error:
        raise FatalError(
            f"the table of dead letters refuses a row: {error}",
            code=error.code,
            todo=f"Compare {letters} with sql/clickhouse/0002_event_log_dead_letters.sql",
            exit_code=Exit.CLICKHOUSE_TABLE,
        ) from error
    trace.stored(message, payload)
    return Report(Outcome.STORED, message.token, message.sequence, dead_letters=aside)


def store_events(
    clickhouse: ClickHouse,
    outbox: Outbox,
    part: Message,
    rows: bytes,
    target: Target,
    *,
    contents: Contents | None = None,
    again: bool = False,
) -> None:
    """Store rows, and send them to the views on the table; a view that refuses a row costs that view alone.

    Args:
        clickhouse: the server to insert into.
        outbox: the outbox of the rows.
        part: the message of these rows.
        rows: Arrow IPC stream.
        target: the outbox's tables.
        contents: as of `insert`.
        again: as of `insert`.

    Raises:
        PipelineError: as of `insert`.
    """
    feed = ViewFeed(clickhouse, outbox, target.events, part.lane, part.owner)
    first, last = parse_position(part.first), parse_position(part.last)
    batch = StoredBatch(batch_number(part), int(first.lsn), int(last.lsn))
    try:
        insert(clickhouse, part, rows, target, contents=contents, again=again)
    except (PoisonError, FatalError) as error:
        if is_thrown(error) or isinstance(error, (ForeignMessageError, TooLargeError)) or not feed.views():
            raise
        try:
            insert(clickhouse, part, rows, replace(target, ignore_view_errors=True), contents=contents)
        except (PoisonError, FatalError):
            # It is the table that refuses.
            raise error from None
        feed.push(batch)


def _superseded(message: Message, mirror: str | None) -> bool:
    # If the mirror of the epoch is in Redis, it saves the query in ClickHouse. It is not the fence: the fence is in the
    # insert statement.
    return mirror is not None and mirror.isdecimal() and len(mirror) < _MAX_DIGITS and int(mirror) > message.epoch


def _report(sink: Sink, message: BatchAddress, report: Report) -> None:
    liveness = alive_key(message.source, message.token)
    drop = [message.payload_key, liveness] if report.outcome in {Outcome.STORED, Outcome.STALE} else []
    begun = liveness if report.outcome is Outcome.BEGUN else None
    key = stored_key(message.fence, message.epoch)
    line = sink.seal.line(key, report.to_json())
    for attempt in range(1, _REPORT_ATTEMPTS + 1):
        begun_at = time.monotonic()
        try:
            sink.payloads.report(key, line, drop=drop, alive=begun)
        except TransientError as error:
            metrics.report_lost()
            log.warning("report_lost", outcome=report.outcome.value, attempt=attempt, error=error)
            time.sleep(backoff_s(attempt, max_s=2.0, random=_random()))
        else:
            metrics.reported(time.monotonic() - begun_at)
            return
    # Without a report, the reader sends the batch again; the token and the positions make this harmless.

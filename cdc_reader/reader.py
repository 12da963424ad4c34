"""Stream -> a reader that streams until it is told to stop.

Edge: opens what a session needs, and begins a new session after every transient failure, with capped backoff. Every
session begins with recovery (cdc_reader/session/recovery.py), so nothing of a failed session is kept.

Source: docs/adr/0003-one-thread-owns-the-session.md
"""

from __future__ import annotations

import functools
import math
import secrets
import time
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from random import SystemRandom
from typing import TYPE_CHECKING

import structlog
from prometheus_client import REGISTRY

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.capture.dispatch import Dispatcher
from outhaul.cdc_reader.postgres.connect import (
    check_may_stream,
    check_stream,
    connect_stream,
    end_of_either_log,
    name_stream_dsn,
    open_stream,
)
from outhaul.cdc_reader.postgres.errors import SlotHeldError, UnsupportedBinary
from outhaul.cdc_reader.postgres.preflight import (
    Server,
    check_kept_apart,
    check_postgres,
    check_slot,
    check_stores,
    check_views,
    patiently,
)
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.cdc_reader.postgres.timelines import Past
from outhaul.cdc_reader.session import memory_tuning
from outhaul.cdc_reader.session.fill_views import fill_views
from outhaul.cdc_reader.session.liveness import Liveness
from outhaul.cdc_reader.session.loop import Session
from outhaul.cdc_reader.session.outbox_watch import OutboxWatch
from outhaul.cdc_reader.session.pause_requests import newest_request
from outhaul.cdc_reader.session.reader_state import process_name
from outhaul.cdc_reader.session.recovery import Recovered, recover
from outhaul.cdc_reader.session.takeover import SlotWaiter
from outhaul.cdc_reader.session.threads import Tools
from outhaul.cdc_reader.session.timeline_watch import TimelineWatch
from outhaul.cdc_reader.slots.change_lock import check_free
from outhaul.cdc_reader.slots.self_heal import Guard, is_about_the_slot, park, recreate_if_allowed, recreate_slot
from outhaul.sink import trial
from outhaul.sink.app import SinkApp, make_app
from outhaul.sink.backoff import backoff_s
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError
from outhaul.sink.position import NO_LSN
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import reconnecting_key
from outhaul.sink.stopping import sleep_unless
from outhaul.sink.telemetry import log_context, sentry
from outhaul.sink.telemetry.exposition import Health, expose
from outhaul.sink.view_check import flaws

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outhaul.sink.position import History, Lsn
    from outhaul.sink.settings import Settings, Stream

log = structlog.get_logger("outhaul.reader")

_random = SystemRandom().random

# Timeout of recovery's query, in seconds: it may read many rows, so the limit for inserts does not apply.
_RECOVERY_TIMEOUT_S = 300.0
# Timeout of the query for the pause request, in seconds: it reads one row, and the end of a session waits for it.
_PAUSE_TIMEOUT_S = 5.0
# Seconds that an attempt to open a session may take: two connections of ten seconds at most, and the rest.
_ATTEMPT_S = 25.0
# Seconds between two checks of the servers while the reader is parked.
_PARKED_S = 5.0


def check(stream: Stream) -> Server:
    """Check all three servers.

    Raises:
        PipelineError: a check has failed; the error of the first one says what to do.
    """
    settings = stream.settings
    server = check_stream(settings, check_postgres(stream))
    check_kept_apart(settings, check_stores(settings))
    check_views(settings)
    return server


def run(stream: Stream, stopping: Callable[[], bool], *, standby: bool = True) -> None:
    """Stream from the slot to ClickHouse until `stopping` says so, then drain.

    Args:
        stream: what to stream.
        stopping: called at every turn; true ends the reader.
        standby: wait while another session holds the slot, instead of raising SlotHeldError.

    Raises:
        PipelineError: an operator is needed; the slot is kept.
    """
    settings = stream.settings
    liveness = Liveness(settings.receive_timeout_s)
    expose(
        settings,
        stream.fence,
        "reader",
        (metrics.REGISTRY, REGISTRY),
        Health(liveness.why_not_alive, liveness.why_not_ready),
    )
    server = patiently(lambda: check(stream), stopping)
    status_interval_s = _status_interval_s(settings, server)
    if warning := server.provider.slot_warning(heals=settings.heal == "auto"):
        log.warning("idle_slots_are_dropped", reason=warning, page=server.provider.page)
    app = make_app(settings)
    memory_tuning.freeze_objects()
    guard, outbox_watch = Guard(stream, stopping), OutboxWatch(settings, stopping)
    must_end = functools.partial(_must_end, stopping, guard, outbox_watch)
    waiter, watch = SlotWaiter(stream, status_interval_s, liveness), TimelineWatch(stream)
    binary, failures, waiting, is_held = True, 0, False, False
    broken: FatalError | None = None
    while not stopping():
        begun_at = time.monotonic()
        try:
            outbox_watch.check()
            if guard.must_park:
                _park(stream, guard, liveness, stopping)
                continue
            if is_held:
                waiter.wait(must_end)
                is_held = False
                continue
            if broken is not None:
                recreate_if_allowed(stream, broken)
                broken = None
            with _session(app, stream, status_interval_s, liveness, watch, binary=binary) as session:
                waiting = False
                _stream(session, lambda: must_end() or watch.has_changed)
        except UnsupportedBinary as error:
            log.info("text_tuples", reason=error.message)
            binary = False
        except SlotHeldError as error:
            if not standby:
                raise
            if not waiting:
                log.info("standing_by", slot=stream.slot, reason=error.message)
            waiting = is_held = True
        except FatalError as error:
            if broken is not None or not is_about_the_slot(error):
                raise
            broken = error
        except TransientError as error:
            # After a session that ran for a while, the failures are counted from the beginning.
            failures = 1 if time.monotonic() - begun_at > settings.retry_max_s else failures + 1
            liveness.set_phase("reconnecting")
            _back_off(stream, error, failures, stopping)


def _must_end(stopping: Callable[[], bool], guard: Guard, outbox_watch: OutboxWatch) -> bool:
    return stopping() or guard.must_park or outbox_watch.error is not None


def _stream(session: Session, stopping: Callable[[], bool]) -> None:
    try:
        session.run(stopping)
    except PipelineError as error:
        raise name_stream_dsn(error, session.stream.settings) from None


def _back_off(stream: Stream, error: TransientError, failures: int, stopping: Callable[[], bool]) -> None:
    wait_s = backoff_s(failures, max_s=stream.settings.retry_max_s, random=_random())
    metrics.SESSION_ENDS.labels(type(error).__name__).inc()
    log.warning("session_ended", slot=stream.slot, error=error, failures=failures, wait_s=round(wait_s, 2))
    _publish_reason(stream, error, wait_s)
    sleep_unless(stopping, wait_s)


def _status_interval_s(settings: Settings, server: Server) -> float:
    if not server.wal_sender_timeout_s:
        return settings.status_interval_s
    return min(settings.status_interval_s, server.wal_sender_timeout_s / 4)


@contextmanager
def _session(
    app: SinkApp, stream: Stream, status_interval_s: float, liveness: Liveness, watch: TimelineWatch, *, binary: bool
) -> Iterator[Session]:
    settings = stream.settings
    log_context.begin(source=settings.source, slot=stream.slot)
    owner = secrets.token_hex(8)
    with connect_stream(settings) as conn:
        check_may_stream(conn, settings)
        check_free(conn, stream)
        check_slot(conn, stream)
    with (
        Payloads.of(settings) as payloads,
        ClickHouse.of(settings, timeout_s=settings.insert_timeout_s) as schema_clickhouse,
        ClickHouse.of(settings, timeout_s=_RECOVERY_TIMEOUT_S) as recovery_clickhouse,
        ClickHouse.of(settings, timeout_s=_PAUSE_TIMEOUT_S) as pause_clickhouse,
        closing(open_stream(stream)) as link,
    ):
        history = link.identify()
        ended = link.ancestors(history.timeline)
        link.start(binary=binary)
        # Read after this session holds the slot: before that, another reader could still move it.
        with connect_stream(settings) as conn:
            facts = slot_facts(conn, stream)
        confirmed = (facts and facts.confirmed) or NO_LSN
        past = Past(ended, slot_was_synced=facts is not None and facts.synced, witness=watch.witness)
        log.info("streaming", slot=stream.slot, confirmed_lsn=str(confirmed), owner=owner, binary=binary)
        tools = Tools(
            link=link,
            dispatcher=Dispatcher(app, payloads, schema_clickhouse, stream.lane),
            payloads=payloads,
            recover=functools.partial(_recover, recovery_clickhouse, stream, history, confirmed, owner, past=past),
            pause_request=functools.partial(newest_request, pause_clickhouse, settings),
            fill_views=functools.partial(fill_views, recovery_clickhouse, stream, owner),
            view_flaws=functools.partial(flaws, pause_clickhouse, settings),
            random=_random,
            liveness=liveness,
        )
        watch.begin(link.pid, history, owner)
        try:
            yield Session(stream, tools, confirmed, owner=owner, status_interval_s=status_interval_s)
        finally:
            watch.end()


def _recover(
    clickhouse: ClickHouse,
    stream: Stream,
    history: History,
    confirmed: Lsn,
    owner: str,
    wait: Callable[[float], None],
    *,
    past: Past,
) -> Recovered:
    """Run the trials if the server has changed since the last session, then recover.

    Raises:
        PipelineError: as of `trial.ensure` and `recover`.
    """
    trial.ensure(clickhouse, stream.settings)
    log_end = functools.partial(end_of_either_log, stream.settings)
    return recover(clickhouse, stream, history, confirmed, owner, wait, past=past, log_end=log_end)


def _park(stream: Stream, guard: Guard, liveness: Liveness, stopping: Callable[[], bool]) -> None:
    """Drop the slot; create it again when all three servers answer.

    Raises:
        PipelineError: a server refuses or does not answer; the slot may still be there.
    """
    park(stream)
    liveness.set_phase("parked")
    error = FatalError("the slot was dropped before its WAL filled the disk", exit_code=Exit.SLOT_MISSING)
    while not stopping():
        try:
            check(stream)
        except TransientError as reason:
            liveness.set_phase("parked")
            _publish_reason(stream, reason, _PARKED_S)
            sleep_unless(stopping, _PARKED_S)
            continue
        recreate_slot(stream, error)
        guard.must_park = False
        return


def _publish_reason(stream: Stream, error: TransientError, wait_s: float) -> None:
    """Publish for `outhaul status` why no session runs, until the next attempt ends; a session's state has precedence.

    Sentry gets the error when it lasts.
    """
    sentry.note_retry(error)
    # A command shows this line until the next attempt ends, so it has its time.
    line = f"{process_name()} has no session and tries again ({datetime.now(UTC):%H:%M:%S} UTC): {error}"
    with Payloads.of(stream.settings) as payloads, suppress(TransientError):
        payloads.set(reconnecting_key(stream.fence), line, ttl_s=math.ceil(wait_s + _ATTEMPT_S))

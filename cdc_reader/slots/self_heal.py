"""A slot that is lost or keeps too much WAL -> dropped or created again by the reader; skipped events are copied.

Edge: Postgres, ClickHouse, two threads. Without OUTHAUL_HEAL=auto the reader changes nothing: it stops, and says which
events are missing and which command continues. With OUTHAUL_PARK_WAL_BYTES the reader drops the slot before its WAL
fills the disk of its server; the events that it would have brought are in the outbox.

Source: docs/adr/0008-the-outbox-is-a-second-log.md
"""

from __future__ import annotations

import threading
import time
from random import SystemRandom
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.outbox.heal import ASK_TIMEOUT_S, heal_all
from outhaul.cdc_reader.outbox.heal_due import due, note_done
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.cdc_reader.slots.change import drop, identify, recreate
from outhaul.cdc_reader.slots.change_lock import check_free, hold
from outhaul.cdc_reader.slots.plan import count_unread
from outhaul.sink.backoff import backoff_s
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError, PipelineError
from outhaul.sink.fence import newest_epoch
from outhaul.sink.telemetry import sentry

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.sink.settings import Settings, Stream

log = structlog.get_logger("outhaul.reader")

_random = SystemRandom().random
_ABOUT_THE_SLOT = {Exit.SLOT_MISSING, Exit.SLOT_UNUSABLE, Exit.OTHER_HISTORY}
_CHECK_S = 2.0
# Seconds that a heal waits until the stream has caught up; after that, it starts again.
_CATCH_UP_S = 3600.0
_GIVE_UP_S = 600.0


def is_about_the_slot(error: FatalError) -> bool:
    """Tell whether a new slot, and a copy of the events that it skips, would solve the error."""
    return error.exit_code in _ABOUT_THE_SLOT


def recreate_if_allowed(stream: Stream, error: FatalError) -> None:
    """Create the slot again, if the settings allow it; then a heal is due.

    Raises:
        FatalError: they do not, or the slot is not outhaul's; the message says what is missing and what to type.
        SlotHeldError: a command changes the slot; stand by.
        PipelineError: a server refuses or does not answer.
    """
    with connect_stream(stream.settings) as conn:
        check_free(conn, stream)
        facts = slot_facts(conn, stream)
    problem = facts.problem if facts else None
    if error.exit_code is not Exit.OTHER_HISTORY and facts is not None and problem is None:
        # The slot has been repaired meanwhile.
        return
    is_own = facts is None or facts.is_own
    with ClickHouse.of(stream.settings, timeout_s=ASK_TIMEOUT_S) as clickhouse:
        if not _may_change_slot(stream.settings) or not is_own or not _same_cluster(stream, clickhouse):
            raise _with_gap(stream, clickhouse, error)
    recreate_slot(stream, error)


def recreate_slot(stream: Stream, reason: FatalError) -> None:
    """Create the slot again; the guard copies the events that it skips.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    log.warning("slot_made_anew", slot=stream.slot, reason=reason.message)
    with (
        ClickHouse.of(stream.settings, timeout_s=ASK_TIMEOUT_S) as clickhouse,
        recreate(stream, clickhouse, accept_loss=False, waiting=_log_waiting),
    ):
        metrics.SLOT_CHANGES.labels(reason.exit_code.name.lower()).inc()


def park(stream: Stream) -> None:
    """Drop the slot, so that Postgres removes the WAL that it keeps.

    The note that a heal is due is written when the slot is created again, since ClickHouse may be down now.

    Raises:
        PipelineError: Postgres refuses or does not answer; the slot is kept then.
    """
    with hold(stream) as conn:
        facts = slot_facts(conn, stream)
        if facts is None:
            return
        drop(conn, stream)
    metrics.SLOT_CHANGES.labels("parked").inc()
    log.warning(
        "parked",
        slot=stream.slot,
        confirmed_lsn=str(facts.confirmed),
        retained_bytes=facts.retained_bytes,
        limit_bytes=stream.settings.park_wal_bytes,
    )


class Guard:
    """Watches the slot beside the session: runs a due heal, and sets `must_park` when the slot must be dropped."""

    def __init__(self, stream: Stream, stopping: Callable[[], bool]) -> None:
        """Start the threads, if the settings allow the reader to change its slot."""
        self.must_park = False
        self._stream = stream
        self._stopping = stopping
        if _may_change_slot(stream.settings):
            for act in (self._heal_if_due, self._watch_wal):
                threading.Thread(target=self._run, args=(act,), name="outhaul-guard", daemon=True).start()

    def _run(self, act: Callable[[], None]) -> None:
        failures = 0
        while not self._stopping():
            wait_s = _CHECK_S
            try:
                act()
                failures = 0
            except Exception as error:  # noqa: BLE001 - the outermost line of a thread
                failures += 1
                wait_s = backoff_s(failures, max_s=self._stream.settings.retry_max_s, random=_random())
                log.warning("guard_waits", slot=self._stream.slot, error=error, wait_s=round(wait_s, 2))
                sentry.report(error)
            time.sleep(max(wait_s, _CHECK_S))

    def _heal_if_due(self) -> None:
        stream, source = self._stream, self._stream.settings.source
        with ClickHouse.of(stream.settings, timeout_s=ASK_TIMEOUT_S) as clickhouse:
            notes = due(clickhouse, (stream,))
            if not notes or self.must_park:
                return
            number = notes[0][1]
            log.info("healing", source=source, note=number)
            try:
                with behind_the_slot((stream,), within_s=_CATCH_UP_S) as line:
                    done = heal_all(stream, line, give_up_s=_GIVE_UP_S, threads=1)
            except Exception:
                metrics.HEALS.labels("failed").inc()
                raise
            note_done(clickhouse, notes)
        metrics.HEALS.labels("done").inc()
        rows, seconds = sum(one.stored for one in done), sum(one.seconds for one in done)
        metrics.HEALED.inc(rows)
        log.info("healed", source=source, note=number, rows=rows, seconds=round(seconds, 1))

    def _watch_wal(self) -> None:
        limit = self._stream.settings.park_wal_bytes
        if not limit:
            return
        with connect_stream(self._stream.settings) as conn:
            facts = slot_facts(conn, self._stream)
        if facts is not None and (facts.retained_bytes or 0) > limit:
            self.must_park = True


def _may_change_slot(settings: Settings) -> bool:
    # A reader that parks drops its slot on purpose, and may be restarted before it has created the slot again.
    return settings.heal == "auto" or settings.park_wal_bytes > 0


def _with_gap(stream: Stream, clickhouse: ClickHouse, error: FatalError) -> FatalError:
    """Return the error with the number of missing events."""
    try:
        unread = count_unread(stream, clickhouse)
    except PipelineError as other:
        gap = f"the number of missing events is unknown: {other.message}"
    else:
        ids = f" ({unread.which})" if unread.events else ""
        gap = (
            f"{unread.events} events{ids} are committed and not in ClickHouse; "
            "they are in the outbox, so they are not lost"
        )
    return FatalError(f"{error.message}. {gap}", code=error.code, todo=error.todo, exit_code=error.exit_code)


def _same_cluster(stream: Stream, clickhouse: ClickHouse) -> bool:
    """Tell whether the server belongs to the cluster that ClickHouse knows; another one may be a mistake in the DSN."""
    newest = newest_epoch(clickhouse, stream.settings, stream.lane)
    return newest is None or newest.history.system_identifier == identify(stream).system_identifier


def _log_waiting() -> None:
    log.warning("slot_waits_for_open_transactions")

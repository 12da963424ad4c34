"""A slot that is lost, or costs too much -> given up or made anew, and what it skipped copied; by the reader itself.

Edge: Postgres, ClickHouse, one thread. Without OUTHAUL_HEAL=auto nothing is changed: the reader stops, and says what
is missing and which command goes on. With OUTHAUL_PARK_WAL_BYTES the slot is given up before the log that it keeps
fills the disk of the server that has it; what it would have brought is in the outbox.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from random import SystemRandom
from typing import TYPE_CHECKING

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.outbox.heal import ASK_TIMEOUT_S, heal_all
from outhaul.cdc_reader.outbox.heal_due import due, note_done
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.cdc_reader.slots.change import drop, identify, make_anew
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
_LOOK_S = 2.0
# The stream may have a backlog before it; a heal waits for it, and is begun again after this, in seconds.
_CATCH_UP_S = 3600.0
_GIVE_UP_S = 600.0


def is_about_the_slot(error: FatalError) -> bool:
    """Tell whether a new slot, and a copy of what it skips, would mend the error."""
    return error.exit_code in _ABOUT_THE_SLOT


def mend(stream: Stream, error: FatalError) -> None:
    """Make the slot anew, if the stream say so; the heal is then due.

    Raises:
        FatalError: they do not, or the slot is not ours to change; the message says what is missing and what to type.
        SlotHeldError: an operator is about it; stand by.
        PipelineError: a server refuses or does not answer.
    """
    with connect_stream(stream.settings) as conn:
        check_free(conn, stream)
        facts = slot_facts(conn, stream)
    problem = facts.problem if facts else None
    if error.exit_code is not Exit.OTHER_HISTORY and facts is not None and problem is None:
        # Somebody has mended it meanwhile.
        return
    ours = facts is None or (facts.plugin == "pgoutput" and facts.here and not facts.is_copy)
    with closing(_asking(stream.settings)) as clickhouse:
        if not _heals(stream.settings) or not ours or not _same_cluster(stream, clickhouse):
            raise _with_gap(stream, clickhouse, error)
    remake(stream, error)


def remake(stream: Stream, reason: FatalError) -> None:
    """Make the slot anew; what it skips is copied by the guard.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    log.warning("slot_made_anew", slot=stream.slot, reason=reason.message)
    with (
        closing(_asking(stream.settings)) as clickhouse,
        make_anew(stream, clickhouse, accept_loss=False, waiting=_say_waiting),
    ):
        metrics.SLOT_CHANGES.labels(reason.exit_code.name.lower()).inc()


def park(stream: Stream) -> None:
    """Give the slot up, and with it the log that it keeps.

    That a heal is due is noted when the slot is made anew: ClickHouse may be what is down.

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
    """Looks after the slot beside the session: heals what is due, and says when the slot has to be given up."""

    def __init__(self, stream: Stream, stopping: Callable[[], bool]) -> None:
        """Start the thread, where the stream give it something to do."""
        self.must_park = False
        self._stream = stream
        self._stopping = stopping
        if _heals(stream.settings):
            for act in (self._heal_what_is_due, self._watch_the_log):
                threading.Thread(target=self._run, args=(act,), name="outhaul-guard", daemon=True).start()

    def _run(self, act: Callable[[], None]) -> None:
        failures = 0
        while not self._stopping():
            wait_s = _LOOK_S
            try:
                act()
                failures = 0
            except Exception as error:  # noqa: BLE001 - the outermost line of a thread
                failures += 1
                wait_s = backoff_s(failures, max_s=self._stream.settings.retry_max_s, random=_random())
                log.warning("guard_waits", slot=self._stream.slot, error=error, wait_s=round(wait_s, 2))
                sentry.told(error)
            time.sleep(max(wait_s, _LOOK_S))

    def _heal_what_is_due(self) -> None:
        stream, source = self._stream, self._stream.settings.source
        with closing(_asking(stream.settings)) as clickhouse:
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

    def _watch_the_log(self) -> None:
        limit = self._stream.settings.park_wal_bytes
        if not limit:
            return
        with connect_stream(self._stream.settings) as conn:
            facts = slot_facts(conn, self._stream)
        if facts is not None and (facts.retained_bytes or 0) > limit:
            self.must_park = True


def _heals(settings: Settings) -> bool:
    # Whoever parks has given a slot up on purpose, and may be started again before it is made anew.
    return settings.heal == "auto" or settings.park_wal_bytes > 0


def _with_gap(stream: Stream, clickhouse: ClickHouse, error: FatalError) -> FatalError:
    """Say what is missing, too."""
    try:
        unread = count_unread(stream, clickhouse)
    except PipelineError as other:
        gap = f"how much is missing cannot be said: {other.message}"
    else:
        ids = f" ({unread.which})" if unread.events else ""
        gap = f"{unread.events} events{ids} are committed and not in ClickHouse; they are in the outbox, none is lost"
    return FatalError(f"{error.message}. {gap}", code=error.code, todo=error.todo, exit_code=error.exit_code)


def _same_cluster(stream: Stream, clickhouse: ClickHouse) -> bool:
    """Tell whether the server is of the cluster that ClickHouse knows: another one may be a mistake in the DSN."""
    newest = newest_epoch(clickhouse, stream.settings, stream.lane)
    return newest is None or newest.history.system_identifier == identify(stream).system_identifier


def _asking(settings: Settings) -> ClickHouse:
    return ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=ASK_TIMEOUT_S)


def _say_waiting() -> None:
    log.warning("slot_waits_for_open_transactions")

"""The session that holds the slot -> is its reader silent; if it is, the end of that session.

Edge: Postgres' views and, if the role may not see enough there, Redis. A killed reader leaves no session. A reader that
is frozen, or whose link broke without an error, leaves one that Postgres keeps for wal_sender_timeout.

Every reader replies to Postgres before a deadline, whatever Redis and ClickHouse do. So if a walsender waits, would
accept a reply at once, and has received no reply for much longer than that, no reader is at the other end. A walsender
that works, on a huge transaction for example, accepts no reply for a while: that proves nothing. If the role cannot see
the replies, a reader that publishes no state in a Redis that answers counts as silent, somewhat later. If the session
of a live reader is ended by mistake, this costs it one reconnect and nothing else: it stands by.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, LiteralString

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.errors import NotAllowedError
from outhaul.cdc_reader.session.reader_state import TTL_S, process_name
from outhaul.sink.errors import FatalError, TransientError
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import reader_key, standby_key
from outhaul.sink.stopping import sleep_unless

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.cdc_reader.session.liveness import Liveness
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.reader")

# Seconds between two checks of the holder; and after the standby has ended a session.
_CHECK_S = 1.0
_CHECK_ENDED_S = 0.1
# Seconds, and status intervals, without a reply until a reader counts as silent. A reader that has never replied may
# still be opening its other connections. If only its state in Redis can be seen, and Redis was unreachable, both sides
# have to connect to it again first.
_SILENT_S, _SILENT_INTERVALS = 5.0, 5
_NO_FIRST_REPLY_S = 15.0
_NO_STATE_S = 7.0
# The walsender must wait at this many checks in a row: it may just have begun to wait.
_WAITING_CHECKS = 2
# If Redis does not answer, a check takes its socket timeout; so Redis is not asked again for this many seconds.
_REDIS_RETRY_S = 30.0

_HOLDER: LiteralString = """
    SELECT pid, activity.backend_start::text AS began, senders.state IS NOT NULL AS shows_replies,
           senders.reply_time::text AS replied,
           activity.application_name = current_setting('application_name') AS is_outhaul,
           coalesce(lower(activity.wait_event) IN ('walsendermain', 'walsenderwaitforwal', 'walsenderwritedata',
                                                   'waitforstandbyconfirmation'), false) AS waits
    FROM pg_replication_slots AS slots JOIN pg_stat_activity AS activity ON pid = active_pid
         LEFT JOIN pg_stat_replication AS senders USING (pid)
    WHERE slot_name = %s"""

# Only the session that was checked, and only if no reply has arrived since.
_END: LiteralString = """
    SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity AS activity LEFT JOIN pg_stat_replication AS senders USING (pid)
    WHERE pid = %s AND activity.backend_start::text = %s AND senders.reply_time::text IS NOT DISTINCT FROM %s"""


@dataclass(frozen=True, slots=True)
class Holder:
    """The session that has the slot, as this role sees it."""

    pid: int
    began: str
    # Whether this role may see the time of the last reply; and that time, by the clock of the replying reader, or None.
    shows_replies: bool
    replied: str | None
    # Whether it has outhaul's application_name: a session of another program is never ended.
    is_outhaul: bool
    # Whether the walsender would accept a reply at once.
    waits: bool


class Watch:
    """Measures for how long the holder is silent; pure, with state. Times are of one clock, in seconds."""

    def __init__(self, status_interval_s: float) -> None:
        """Start without a holder."""
        self._silent_s = max(_SILENT_S, _SILENT_INTERVALS * status_interval_s)
        self._seen: tuple[object, ...] = ()
        self._since = 0.0
        self._waiting = 0

    def observe(self, holder: Holder, *, is_published: bool, now: float) -> float | None:
        """Note a check; return for how long the holder has been silent, in seconds, or None if that is not too long.

        Args:
            holder: the session that has the slot.
            is_published: whether its reader publishes its state in Redis; true if that is not known.
            now: the clock, in seconds.
        """
        seen = (holder.pid, holder.began, holder.replied if holder.shows_replies else is_published)
        if seen != self._seen:
            self._seen, self._since, self._waiting = seen, now, 0
        self._waiting = self._waiting + 1 if holder.waits else 0
        silent_s = now - self._since
        if not holder.is_outhaul or self._waiting < _WAITING_CHECKS or silent_s < self._limit_s(holder):
            return None
        return None if is_published and not holder.shows_replies else silent_s

    def _limit_s(self, holder: Holder) -> float:
        if not holder.shows_replies:
            return max(_NO_STATE_S, self._silent_s)
        return self._silent_s if holder.replied else max(_NO_FIRST_REPLY_S, self._silent_s)


class SlotWaiter:
    """A reader that waits for the slot."""

    def __init__(self, stream: Stream, status_interval_s: float, liveness: Liveness) -> None:
        """Prepare to stand by; no connection is opened yet."""
        self._stream = stream
        self._signs = liveness
        self._watch = Watch(status_interval_s)
        self._payloads = Payloads.of(stream.settings)
        self._redis_retry_at = float("-inf")
        self._logged: set[tuple[int, str]] = set()
        self._ending: Holder | None = None

    def wait(self, stopping: Callable[[], bool]) -> None:
        """Wait until no session holds the slot; end a session whose reader is silent.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        wait_s = _CHECK_S
        while True:
            self._signs.set_phase("standing_by")
            if sleep_unless(stopping, wait_s):
                return
            with connect_stream(self._stream.settings) as conn:
                holder = _find_holder(conn, self._stream.slot)
                if holder is None:
                    return
                wait_s = self._check(conn, holder)

    def _check(self, conn: Connection, holder: Holder) -> float:
        """Check the holder, end its session if it is silent, and return the time to the next check, in seconds."""
        if self._ending is not None and replace(holder, waits=self._ending.waits) == self._ending:
            # A walsender sends a last message before it ends, and waits if nobody reads; a second signal ends it.
            _terminate(conn, holder)
            return _CHECK_ENDED_S
        self._ending = None
        if not holder.shows_replies and not self._logged:
            self._logged.add((holder.pid, holder.began))
            log.info(
                "standby_sees_little",
                slot=self._stream.slot,
                reason="this role may not see when the other reader replies to Postgres: if that reader's link breaks, "
                "this reader waits until Postgres ends the session",
                todo="GRANT pg_read_all_stats to this role; then a second reader takes over within seconds",
            )
        silent_s = self._watch.observe(holder, is_published=self._other_publishes(), now=time.monotonic())
        if silent_s is None or not self._end(conn, holder, silent_s):
            return _CHECK_S
        self._ending = holder
        return _CHECK_ENDED_S

    def _other_publishes(self) -> bool:
        """Publish that this reader stands by; return whether the other publishes its state, True if unknown."""
        now = time.monotonic()
        if now < self._redis_retry_at:
            return True
        fence = self._stream.fence
        try:
            self._payloads.set(standby_key(fence), process_name(), ttl_s=TTL_S)
            return self._payloads.text(reader_key(fence)) is not None
        except (TransientError, FatalError):
            # If this reader cannot write to Redis, the missing state of the other one proves nothing.
            self._redis_retry_at = now + _REDIS_RETRY_S
            return True

    def _end(self, conn: Connection, holder: Holder, silent_s: float) -> bool:
        facts = {"slot": self._stream.slot, "pid": holder.pid, "silent_s": round(silent_s, 1)}
        try:
            ended = _terminate(conn, holder)
        except NotAllowedError:
            if (key := (holder.pid, f"left {holder.began}")) not in self._logged:
                self._logged.add(key)
                log.warning(
                    "silent_session_left",
                    **facts,
                    reason="this role may not end the session; Postgres ends it after wal_sender_timeout",
                    todo="Let all readers log in as the same role, or GRANT pg_signal_backend to this one",
                )
            return False
        if not ended:
            return False
        metrics.TAKEOVERS.inc()
        evidence = (
            "it has stopped replying to Postgres" if holder.shows_replies else "its reader publishes no state in Redis"
        )
        log.warning("silent_session_ended", **facts, reason=evidence)
        return True


def _find_holder(conn: Connection, slot: str) -> Holder | None:
    return next(iter(conn.fetch_as(Holder, _HOLDER, [slot])), None)


def _terminate(conn: Connection, holder: Holder) -> bool:
    return bool(conn.fetch_value(_END, [holder.pid, holder.began, holder.replied]))

"""Another session holds the slot -> has its reader fallen silent, and if so, an end of that session.

Edge: Postgres' views and, where the role may not see what it needs there, Redis. A reader that was killed leaves no
session; one that sleeps, or whose link broke without a word, leaves one that Postgres keeps for wal_sender_timeout.

Every reader answers Postgres on a deadline, whatever Redis and ClickHouse are doing. A walsender that waits, and would
take an answer at once, and has taken none for much longer than that, has nobody at the other end. One that works (on a
huge transaction, say) takes none for a while and proves nothing. Where that cannot be seen, a reader that has not said
a word in a Redis that works is taken for silent, somewhat later. A live reader whose session was ended all the same
loses a reconnect and nothing else: it stands by.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, LiteralString

import structlog

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.errors import NotAllowedError
from outhaul.cdc_reader.session.reader_state import TTL_S
from outhaul.sink.errors import FatalError, TransientError
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import reader_key, standby_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.cdc_reader.session.liveness import Signs
    from outhaul.sink.settings import Stream

log = structlog.get_logger("outhaul.reader")

# How often a standby looks, in seconds; and how often after it has ended a session.
_LOOK_S = 1.0
_SOON_S = 0.1
# How long a reader may be silent, in seconds, and in turns of its own deadline; where it has never answered, it may
# still be opening its other connections; where only Redis is heard, both have to come back first if that was away.
_SILENT_S, _TURNS = 5.0, 5
_NEVER_S = 15.0
_UNHEARD_S = 7.0
# A walsender may just have begun to wait when it is looked at.
_WAITING_LOOKS = 2
# A Redis that does not answer costs a look its socket timeout, and is left alone for so long, in seconds.
_REDIS_REST_S = 30.0

_LOOK: LiteralString = """
    SELECT pid, activity.backend_start::text AS began, senders.state IS NOT NULL AS is_shown,
           senders.reply_time::text AS replied,
           activity.application_name = current_setting('application_name') AS is_ours,
           coalesce(lower(activity.wait_event) IN ('walsendermain', 'walsenderwaitforwal', 'walsenderwritedata',
                                                   'waitforstandbyconfirmation'), false) AS waits
    FROM pg_replication_slots AS slots JOIN pg_stat_activity AS activity ON pid = active_pid
         LEFT JOIN pg_stat_replication AS senders USING (pid)
    WHERE slot_name = %s"""

# Only the session that was looked at, and only if it has not been answered since.
_END: LiteralString = """
    SELECT pg_terminate_backend(pid)
    FROM pg_stat_activity AS activity LEFT JOIN pg_stat_replication AS senders USING (pid)
    WHERE pid = %s AND activity.backend_start::text = %s AND senders.reply_time::text IS NOT DISTINCT FROM %s"""


@dataclass(frozen=True, slots=True)
class Holder:
    """The session that has the slot, as this role sees it."""

    pid: int
    began: str
    # Whether Postgres shows when it was last answered, and when that was, by the clock of who answered; None is never.
    is_shown: bool
    replied: str | None
    # Whether it calls itself as we do: what others stream from our slot is theirs.
    is_ours: bool
    # Whether it would take an answer at once.
    waits: bool


class Watch:
    """How long the holder has been silent; pure, with state. Times are of one clock, in seconds."""

    def __init__(self, status_interval_s: float) -> None:
        """Begin with nobody."""
        self._silent_s = max(_SILENT_S, _TURNS * status_interval_s)
        self._mark: tuple[object, ...] = ()
        self._since = 0.0
        self._waiting = 0

    def saw(self, holder: Holder, *, is_heard: bool, now: float) -> float | None:
        """Note a look; return for how long the holder has been silent once that is too long.

        Args:
            holder: who has the slot.
            is_heard: its reader says something in Redis, or whether it does is not known.
            now: the clock.
        """
        mark = (holder.pid, holder.began, holder.replied if holder.is_shown else is_heard)
        if mark != self._mark:
            self._mark, self._since, self._waiting = mark, now, 0
        self._waiting = self._waiting + 1 if holder.waits else 0
        silent_s = now - self._since
        if not holder.is_ours or self._waiting < _WAITING_LOOKS or silent_s < self._patience_s(holder):
            return None
        return None if is_heard and not holder.is_shown else silent_s

    def _patience_s(self, holder: Holder) -> float:
        if not holder.is_shown:
            return max(_UNHEARD_S, self._silent_s)
        return self._silent_s if holder.replied else max(_NEVER_S, self._silent_s)


class Standby:
    """A reader that waits for the slot."""

    def __init__(self, stream: Stream, status_interval_s: float, signs: Signs) -> None:
        """Open nothing yet."""
        self._stream = stream
        self._signs = signs
        self._watch = Watch(status_interval_s)
        self._payloads = Payloads(stream.settings.redis_url.get_secret_value(), stream.settings.source)
        self._redis_rests_until = float("-inf")
        self._said: set[tuple[int, str]] = set()
        self._ending: Holder | None = None

    def wait(self, stopping: Callable[[], bool]) -> None:
        """Wait until nobody has the slot, or what had it was silent and is ended.

        Raises:
            PipelineError: Postgres refuses or does not answer.
        """
        wait_s = _LOOK_S
        while True:
            self._signs.does("standing_by")
            deadline = time.monotonic() + wait_s
            while not stopping() and (left_s := deadline - time.monotonic()) > 0:
                time.sleep(min(left_s, 0.1))
            if stopping():
                return
            with connect_stream(self._stream.settings) as conn:
                holder = _look(conn, self._stream.slot)
                if holder is None:
                    return
                wait_s = self._judge(conn, holder)

    def _judge(self, conn: Connection, holder: Holder) -> float:
        """Look at the holder, end it if need be, and return how soon to look again, in seconds."""
        if self._ending is not None and replace(holder, waits=self._ending.waits) == self._ending:
            # A walsender has a last word, and waits for a client that does not read it; told again, it goes.
            _terminate(conn, holder)
            return _SOON_S
        self._ending = None
        if not holder.is_shown and not self._said:
            self._said.add((holder.pid, holder.began))
            log.info(
                "standby_sees_little",
                slot=self._stream.slot,
                reason="this role may not see when the other reader answers Postgres: a link that breaks is waited out",
                todo="GRANT pg_read_all_stats to it, and a second reader takes over in seconds",
            )
        silent_s = self._watch.saw(holder, is_heard=self._hears(), now=time.monotonic())
        if silent_s is None or not self._end(conn, holder, silent_s):
            return _LOOK_S
        self._ending = holder
        return _SOON_S

    def _hears(self) -> bool:
        """Say in Redis that we wait; tell whether the reader says something there, as far as that is known."""
        now = time.monotonic()
        if now < self._redis_rests_until:
            return True
        fence = self._stream.fence
        try:
            line = f"the reader on {socket.gethostname()} (process {os.getpid()})"
            self._payloads.set(standby_key(fence), line, ttl_s=TTL_S)
            return self._payloads.text(reader_key(fence)) is not None
        except (TransientError, FatalError):
            # No word of others is no sign of anything where ours does not get through.
            self._redis_rests_until = now + _REDIS_REST_S
            return True

    def _end(self, conn: Connection, holder: Holder, silent_s: float) -> bool:
        facts = {"slot": self._stream.slot, "pid": holder.pid, "silent_s": round(silent_s, 1)}
        try:
            ended = _terminate(conn, holder)
        except NotAllowedError:
            if (key := (holder.pid, f"left {holder.began}")) not in self._said:
                self._said.add(key)
                log.warning(
                    "silent_session_left",
                    **facts,
                    reason="this role may not end it, so Postgres will, after wal_sender_timeout",
                    todo="Let all readers log in as one role, or GRANT pg_signal_backend to it",
                )
            return False
        if not ended:
            return False
        metrics.TAKEOVERS.inc()
        evidence = "it answers Postgres no more" if holder.is_shown else "its reader says nothing in Redis"
        log.warning("silent_session_ended", **facts, reason=evidence)
        return True


def _look(conn: Connection, slot: str) -> Holder | None:
    return next(iter(conn.fetch_as(Holder, _LOOK, [slot])), None)


def _terminate(conn: Connection, holder: Holder) -> bool:
    return bool(conn.fetch_value(_END, [holder.pid, holder.began, holder.replied]))

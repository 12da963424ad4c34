"""Link and clocks -> frames when there are some, feedback when it is due, an error when the other side is gone.

Edge: waits on the socket. The walsender ends a session that says nothing for `wal_sender_timeout`, and a link can be
dead without a word; so this file knows when each side was last heard.

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.capture.frame import heard, standby_status
from outhaul.sink.errors import Exit, TransientError
from outhaul.sink.position import NO_LSN, Lsn

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.frame import Run
    from outhaul.cdc_reader.postgres.slot import Link

_POSTGRES_EPOCH_US = 946_684_800_000_000
# Rows that come while others wait for company may wait with them: a wake-up for each costs both sides several times the
# work itself. So many bytes are worth one, and so long, in seconds, may a keepalive that wants an answer go unread.
_CROWD_BYTES = 16 << 10
_PATIENCE_S = 0.2
# When all that had come was read, more is not looked at for so long, in seconds, and gathers in the server's socket
# (cdc_reader/postgres/receive_buffer.py). Kernels give that some megabytes, which a walsender does not fill in this
# time. Where there
# was plenty to read, in bytes, reading it took as long.
_REST_S = 0.01
_PLENTY_BYTES = 512 << 10
# A walsender that shares its processor with others pauses for a moment; a crowd does not end with that, in seconds.
_CROWD_LASTS_S = 0.05
# Whoever has not read for so long, in seconds, is not just waiting for its decoder.
_PAUSE_S = 0.5
_GONE = select.POLLERR | select.POLLHUP | select.POLLRDHUP | select.POLLNVAL


class Wire:
    """The socket and its clocks: when to say something, when to worry.

    `heard_at` and `said_at` are when Postgres was last heard, and last told something.
    """

    def __init__(self, link: Link, status_interval_s: float, receive_timeout_s: float, now: float) -> None:
        self._link = link
        self._interval_s = status_interval_s
        self._timeout_s = receive_timeout_s
        self.heard_at = now
        self._read_at = now
        self.said_at = float("-inf")
        self._asked = False
        self._said = NO_LSN
        self._reply_due = False
        self._rest_until = float("-inf")
        self._look_bytes = 0
        self.crowded_until = float("-inf")
        self.received = NO_LSN

    def is_crowded(self, now: float) -> bool:
        """Tell whether more rows keep coming than are worth a look each."""
        return now < self.crowded_until

    def due_at(self) -> float:
        """Return the clock at which the next feedback is due."""
        return self.said_at + self._interval_s

    def wait(
        self, wake: int, deadline: float, run: Run, max_bytes: int, max_frames: int, *, patient: bool = False
    ) -> None:
        """Wait for the socket, for `wake` (a descriptor) or for the deadline, and append what came to `run`.

        Nothing is read when `max_bytes` is 0. A patient caller has frames already; it waits for many bytes or for the
        deadline, a moment at most.

        Raises:
            PipelineError: the link is gone, or what came is not what the protocol says.
        """
        now = time.monotonic()
        reading = max_bytes > 0
        if patient and reading:
            deadline = min(deadline, now + _PATIENCE_S)
        deadline = min(deadline, self._fit_window(now, reading=reading))
        resting = patient and now < self._rest_until
        until = now if reading and not resting and self._link.more else deadline
        self._link.window.wake_at(_CROWD_BYTES if patient else 1)
        flags = self._poll(wake, min(until, self._rest_until) if resting else until, looking=reading and not resting)
        # Whoever was patient takes along what is there at every turn, but while it rests only when the time is over.
        due = patient and (not resting or time.monotonic() >= deadline)
        if reading and (flags & (select.POLLIN | _GONE) or (self._link.more and not resting) or due):
            self._look(run, max_bytes, max_frames)
        elif flags & _GONE:
            raise TransientError(
                f"the link to Postgres is gone: {self._link.broken_by()}", exit_code=Exit.POSTGRES_UNREACHABLE
            )

    def _fit_window(self, now: float, *, reading: bool) -> float:
        """Narrow the window where it is read from, widen it in a pause; return the clock at which to ask again."""
        if reading:
            # Before the first look after a pause, as the window is full then, and nothing more was promised.
            self._link.window.narrow()
            self._read_at = now
        elif now - self._read_at >= _PAUSE_S:
            self._link.window.widen()
        elif self._link.window.is_narrow:
            return self._read_at + _PAUSE_S
        return float("inf")

    def _poll(self, wake: int, deadline: float, *, looking: bool) -> int:
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        want = select.POLLRDHUP | (select.POLLIN if looking else 0) | (select.POLLOUT if self._link.unsent else 0)
        poll.register(self._link.fileno(), want)
        begun_at = time.monotonic()
        flags = dict(poll.poll(max(0.0, deadline - begun_at) * 1000)).get(self._link.fileno(), 0)
        metrics.WAIT_S.inc(time.monotonic() - begun_at)
        if flags & select.POLLOUT:
            self._link.flush()
        return flags

    def _look(self, run: Run, max_bytes: int, max_frames: int) -> None:
        frames, size = len(run.lengths), len(run.data)
        begun_at = time.monotonic()
        self._link.read(run.data, run.lengths, max_bytes, max_frames)
        now = time.monotonic()
        metrics.READ_S.inc(now - begun_at)
        self._look_bytes += len(run.data) - size
        if not self._link.more:
            if self._look_bytes >= _CROWD_BYTES:
                self.crowded_until = now + _CROWD_LASTS_S
            if self._look_bytes < _PLENTY_BYTES:
                self._rest_until = now + _REST_S
            self._look_bytes = 0
        if len(run.lengths) > frames:
            self.heard_at, self._asked = now, False
            said = heard(run, frames)
            self._reply_due |= said.reply_requested
            self.received = max(self.received, said.wal_end)

    def keep_up(self, confirmed: Lsn, now: float, *, listening: bool) -> None:
        """Send feedback when it is due, asked for, or has news; ask a silent server for a sign of life.

        Raises:
            TransientError: it gave none for too long.
        """
        if not listening:
            self.heard_at = max(self.heard_at, now - self._timeout_s / 2)
        silent_s = now - self.heard_at
        if silent_s > self._timeout_s:
            raise TransientError(f"Postgres has been silent for {silent_s:.0f} s", exit_code=Exit.POSTGRES_UNREACHABLE)
        ask = listening and not self._asked and silent_s > self._timeout_s / 2
        if ask or self._reply_due or confirmed > self._said or now >= self.due_at():
            self.feedback(confirmed, now, ask=ask)

    def feedback(self, confirmed: Lsn, now: float, *, ask: bool = False) -> None:
        """Tell Postgres what was received and what is stored."""
        clock_us = time.time_ns() // 1000 - _POSTGRES_EPOCH_US
        self._link.send(standby_status(max(self.received, confirmed), confirmed, confirmed, clock_us, ask))
        self.said_at, self._said, self._reply_due = now, confirmed, False
        self._asked = self._asked or ask

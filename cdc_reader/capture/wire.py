"""Socket of a replication session, and the clock -> frames, feedback when it is due, an error when the link is dead.

Edge: waits for the socket. The walsender ends a session that sends no feedback for `wal_sender_timeout`, and a link can
break without an error. So this file records when each side last sent something.

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.capture.frame import server_status, standby_status
from outhaul.sink.errors import Exit, TransientError
from outhaul.sink.position import NO_LSN, Lsn

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.frame import Run
    from outhaul.cdc_reader.postgres.slot import Link

_POSTGRES_EPOCH_US = 946_684_800_000_000
# While a batch fills, the reader wakes up for this many bytes, not for each row: a wake-up costs both sides several
# times the work on one row. A keepalive that requests a reply may therefore stay unread, for this many seconds at most.
_WAKE_BYTES = 16 << 10
_MAX_GATHER_S = 0.2
# After the reader has emptied the socket, it does not read for this many seconds: rows gather in the server's socket
# (cdc_reader/postgres/receive_buffer.py). That holds some megabytes, which a walsender does not fill in this time.
# After a burst of this many bytes there is no such gap, since reading the burst took as long as the gap.
_READ_GAP_S = 0.01
_BURST_BYTES = 512 << 10
# A walsender that shares its processor pauses for a moment; the stream still counts as busy for this many seconds.
_BUSY_S = 0.05
# A reader that has not read for this many seconds is paused; waiting for the decoder takes less.
_PAUSE_S = 0.5
_GONE = select.POLLERR | select.POLLHUP | select.POLLRDHUP | select.POLLNVAL


class Wire:
    """The socket and its clocks, in seconds.

    `received_at` is when the last frame arrived, `sent_at` when the last feedback was sent.
    """

    def __init__(self, link: Link, status_interval_s: float, receive_timeout_s: float, now: float) -> None:
        self._link = link
        self._interval_s = status_interval_s
        self._timeout_s = receive_timeout_s
        self.received_at = now
        self._read_at = now
        self.sent_at = float("-inf")
        self._awaits_reply = False
        self._confirmed = NO_LSN
        self._reply_due = False
        self._next_read_at = float("-inf")
        self._burst_bytes = 0
        self.busy_until = float("-inf")
        self.received = NO_LSN

    def is_busy(self, now: float) -> bool:
        """Tell whether rows arrive faster than the reader should wake up for each of them."""
        return now < self.busy_until

    def due_at(self) -> float:
        """Return the clock at which the next feedback is due, in seconds."""
        return self.sent_at + self._interval_s

    def wait(
        self, wake: int, deadline: float, run: Run, max_bytes: int, max_frames: int, *, gather: bool = False
    ) -> None:
        """Wait for the socket, the descriptor `wake` or the deadline, and append the frames that arrived to `run`.

        If `max_bytes` is 0, nothing is read. With `gather`, the caller has frames already: wait until many bytes have
        arrived, or for `_MAX_GATHER_S` at most.

        Raises:
            PipelineError: the link is broken, or a frame violates the protocol.
        """
        now = time.monotonic()
        reading = max_bytes > 0
        if gather and reading:
            deadline = min(deadline, now + _MAX_GATHER_S)
        deadline = min(deadline, self._fit_window(now, reading=reading))
        in_gap = gather and now < self._next_read_at
        until = now if reading and not in_gap and self._link.more else deadline
        self._link.window.wake_at(_WAKE_BYTES if gather else 1)
        flags = self._poll(wake, min(until, self._next_read_at) if in_gap else until, for_input=reading and not in_gap)
        # While it gathers, the reader reads at every wake-up, also less than `_WAKE_BYTES`; in a gap, at the deadline.
        due = gather and (not in_gap or time.monotonic() >= deadline)
        if reading and (flags & (select.POLLIN | _GONE) or (self._link.more and not in_gap) or due):
            self._read(run, max_bytes, max_frames)
        elif flags & _GONE:
            raise TransientError(
                f"the link to Postgres is broken: {self._link.broken_by()}", exit_code=Exit.POSTGRES_UNREACHABLE
            )

    def _fit_window(self, now: float, *, reading: bool) -> float:
        """Narrow the window while the reader reads, widen it in a pause; return when to check again, in seconds."""
        if reading:
            # Before the first read after a pause: the window is full then, so the kernel has promised no more room.
            self._link.window.narrow()
            self._read_at = now
        elif now - self._read_at >= _PAUSE_S:
            self._link.window.widen()
        elif self._link.window.is_narrow:
            return self._read_at + _PAUSE_S
        return float("inf")

    def _poll(self, wake: int, deadline: float, *, for_input: bool) -> int:
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        want = select.POLLRDHUP | (select.POLLIN if for_input else 0) | (select.POLLOUT if self._link.unsent else 0)
        poll.register(self._link.fileno(), want)
        begun_at = time.monotonic()
        flags = dict(poll.poll(max(0.0, deadline - begun_at) * 1000)).get(self._link.fileno(), 0)
        metrics.WAIT_S.inc(time.monotonic() - begun_at)
        if flags & select.POLLOUT:
            self._link.flush()
        return flags

    def _read(self, run: Run, max_bytes: int, max_frames: int) -> None:
        frames, size = len(run.lengths), len(run.data)
        begun_at = time.monotonic()
        self._link.read(run.data, run.lengths, max_bytes, max_frames)
        now = time.monotonic()
        metrics.READ_S.inc(now - begun_at)
        self._burst_bytes += len(run.data) - size
        if not self._link.more:
            if self._burst_bytes >= _WAKE_BYTES:
                self.busy_until = now + _BUSY_S
            if self._burst_bytes < _BURST_BYTES:
                self._next_read_at = now + _READ_GAP_S
            self._burst_bytes = 0
        if len(run.lengths) > frames:
            self.received_at, self._awaits_reply = now, False
            status = server_status(run, frames)
            self._reply_due |= status.reply_requested
            self.received = max(self.received, status.wal_end)

    def keep_alive(self, confirmed: Lsn, now: float, *, reading: bool) -> None:
        """Send feedback if it is due, if Postgres requested a reply, or if the confirmed position has moved.

        If Postgres has sent nothing for half of the receive timeout, request a reply. `reading` is false while the
        reader does not read the socket: then silence proves nothing, and at most half of the timeout is counted.

        Raises:
            TransientError: Postgres has sent nothing for longer than the receive timeout.
        """
        if not reading:
            self.received_at = max(self.received_at, now - self._timeout_s / 2)
        silent_s = now - self.received_at
        if silent_s > self._timeout_s:
            raise TransientError(f"Postgres has sent nothing for {silent_s:.0f} s", exit_code=Exit.POSTGRES_UNREACHABLE)
        ask = reading and not self._awaits_reply and silent_s > self._timeout_s / 2
        if ask or self._reply_due or confirmed > self._confirmed or now >= self.due_at():
            self.send_feedback(confirmed, now, ask=ask)

    def send_feedback(self, confirmed: Lsn, now: float, *, ask: bool = False) -> None:
        """Send the received and the confirmed position to Postgres; `ask` requests a reply."""
        clock_us = time.time_ns() // 1000 - _POSTGRES_EPOCH_US
        self._link.send(standby_status(max(self.received, confirmed), confirmed, confirmed, clock_us, ask))
        self.sent_at, self._confirmed, self._reply_due = now, confirmed, False
        self._awaits_reply = self._awaits_reply or ask

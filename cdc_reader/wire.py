"""Link and clocks -> frames when there are some, feedback when it is due, an error when the other side is gone.

Edge: waits on the socket. The walsender ends a session that says nothing for `wal_sender_timeout`, and a link can be
dead without a word; so this file knows when each side was last heard.

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from cdc_reader.frame import is_keepalive, parse_keepalive, standby_status, wal_end
from sink.errors import Exit, TransientError
from sink.position import NO_LSN, Lsn

if TYPE_CHECKING:
    from cdc_reader.slot import Link
    from cdc_reader.stages import Events

_POSTGRES_EPOCH_US = 946_684_800_000_000
_GONE = select.POLLERR | select.POLLHUP | select.POLLRDHUP | select.POLLNVAL


class Wire:
    """The socket and its clocks: when to say something, when to worry."""

    def __init__(self, link: Link, status_interval_s: float, receive_timeout_s: float, now: float) -> None:
        self._link = link
        self._interval_s = status_interval_s
        self._timeout_s = receive_timeout_s
        self._heard_at = now
        self._said_at = float("-inf")
        self._asked = False
        self._said = NO_LSN
        self._more = False
        self._reply_due = False
        self.received = NO_LSN

    def due_at(self) -> float:
        """Return the clock at which the next feedback is due."""
        return self._said_at + self._interval_s

    def wait(self, events: Events, deadline: float, max_bytes: int) -> tuple[list[bytes], int]:
        """Wait for the socket, an event or the deadline; return the frames that came, none when `max_bytes` is 0."""
        poll = select.poll()
        poll.register(events.fileno(), select.POLLIN)
        want = select.POLLRDHUP | (select.POLLIN if max_bytes else 0) | (select.POLLOUT if self._link.unsent else 0)
        poll.register(self._link.fileno(), want)
        timeout_s = 0.0 if max_bytes and self._more else max(0.0, deadline - time.monotonic())
        ready = dict(poll.poll(timeout_s * 1000))
        flags = ready.get(self._link.fileno(), 0)
        if flags & select.POLLOUT:
            self._link.flush()
        if not max_bytes:
            if flags & _GONE:
                raise TransientError("Postgres closed the link", exit_code=Exit.POSTGRES_UNREACHABLE)
            return [], 0
        if not flags & (select.POLLIN | _GONE) and not self._more:
            return [], 0
        frames, size = self._link.read(max_bytes)
        self._more = size >= max_bytes
        if frames:
            self._heard_at, self._asked = time.monotonic(), False
            self._note(frames)
        return frames, size

    def _note(self, frames: list[bytes]) -> None:
        for frame in frames:
            if is_keepalive(frame) and parse_keepalive(frame).reply_requested:
                self._reply_due = True
        last = frames[-1]
        end = parse_keepalive(last).wal_end if is_keepalive(last) else wal_end(last)
        self.received = max(self.received, end)

    def keep_up(self, confirmed: Lsn, now: float, *, listening: bool) -> None:
        """Send feedback when it is due, asked for, or has news; ask a silent server for a sign of life.

        Raises:
            TransientError: it gave none for too long.
        """
        if not listening:
            self._heard_at = max(self._heard_at, now - self._timeout_s / 2)
        silent_s = now - self._heard_at
        if silent_s > self._timeout_s:
            raise TransientError(f"Postgres has been silent for {silent_s:.0f} s", exit_code=Exit.POSTGRES_UNREACHABLE)
        ask = listening and not self._asked and silent_s > self._timeout_s / 2
        if ask or self._reply_due or confirmed > self._said or now >= self.due_at():
            self.feedback(confirmed, now, ask=ask)

    def feedback(self, confirmed: Lsn, now: float, *, ask: bool = False) -> None:
        """Tell Postgres what was received and what is stored."""
        clock_us = time.time_ns() // 1000 - _POSTGRES_EPOCH_US
        self._link.send(standby_status(max(self.received, confirmed), confirmed, confirmed, clock_us, ask))
        self._said_at, self._said, self._reply_due = now, confirmed, False
        self._asked = self._asked or ask

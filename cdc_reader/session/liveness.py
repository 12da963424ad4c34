"""What the reader does and when it was last heard -> is it alive, is it ready, and how long are the silences.

Pure, with state: the threads of a reader write it, the metrics port reads it. Alive is that the loop turns and, while
a session lasts, that bytes come over the wire: a reader that is neither is helped by a new start, by nothing else.

Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.session.reader_state import PHASES, SESSION_PHASES

if TYPE_CHECKING:
    from collections.abc import Callable

# A turn of a session's loop takes a second at most; what happens between sessions may wait for servers, in seconds.
_TURN_S = 15.0
_BETWEEN_S = 300.0
# A session ends by itself after the receive timeout; this much later, in seconds, it has not.
_GRACE_S = 10.0


class Signs:
    """The signs of life of one reader; times are of `clock`, in seconds."""

    def __init__(self, receive_timeout_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin as a reader that starts."""
        self._timeout_s = receive_timeout_s
        self._clock = clock
        self._turned_at = self._heard_at = self._said_at = clock()
        self._doing = "starting"
        self.does("starting")
        metrics.SILENCE.set_function(lambda: self._since(self._heard_at))
        metrics.FEEDBACK_AGE.set_function(lambda: self._since(self._said_at))

    def does(self, doing: str) -> None:
        """Note what the reader does, one of `outhaul.cdc_reader.session.reader_state.PHASES`."""
        self._turned_at = self._clock()
        if doing in SESSION_PHASES and self._doing not in SESSION_PHASES:
            self._heard_at = self._said_at = self._turned_at
        self._doing = doing
        for phase in PHASES:
            metrics.PHASE.labels(phase).set(phase == doing)

    def turned(self, now: float, heard_at: float, said_at: float) -> None:
        """Note a turn of a session's loop, when Postgres was last heard, and when it was last told something."""
        self._turned_at, self._heard_at, self._said_at = now, heard_at, said_at

    def alive(self) -> str:
        """Return why the reader should be started again; nothing if it should not."""
        now = self._clock()
        in_session = self._doing in SESSION_PHASES
        still_s = now - self._turned_at
        if still_s > (_TURN_S if in_session else _BETWEEN_S):
            return f"the loop has not turned for {still_s:.0f} s ({self._doing})"
        silent_s = now - self._heard_at
        if in_session and silent_s > self._timeout_s + _GRACE_S:
            return f"no byte has come from Postgres for {silent_s:.0f} s"
        return ""

    def ready(self) -> str:
        """Return why the reader does not do its part; nothing if it owns the slot, or stands by to."""
        if self._doing in SESSION_PHASES or self._doing == "standing_by":
            return self.alive()
        return f"the reader is {self._doing}"

    def _since(self, when: float) -> float:
        # The loop looks at the clock once a turn, which may be a moment before the writing was done.
        return max(0.0, self._clock() - max(when, 0.0)) if self._doing in SESSION_PHASES else 0.0

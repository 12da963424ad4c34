"""The reader's phase and the times of its messages -> is it alive, is it ready, and how long has each side been silent.

Pure, with state: the threads of a reader write it, the metrics port reads it. A reader is alive while its loop turns
and, during a session, while bytes arrive from Postgres. If not, only a restart helps.

Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from outhaul.cdc_reader import metrics
from outhaul.cdc_reader.session.reader_state import PHASES, SESSION_PHASES

if TYPE_CHECKING:
    from collections.abc import Callable

# Limits in seconds: a turn of a session's loop takes one at most; between sessions the reader may wait for servers.
_TURN_S = 15.0
_BETWEEN_S = 300.0
# A session ends by itself after the receive timeout. If it has not this many seconds later, it hangs.
_GRACE_S = 10.0


class Liveness:
    """The state of one reader that shows whether it is alive; times are of `clock`, in seconds."""

    def __init__(self, receive_timeout_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Start in the phase `starting`."""
        self._timeout_s = receive_timeout_s
        self._clock = clock
        self._turned_at = self._received_at = self._sent_at = clock()
        self._phase = "starting"
        self.set_phase("starting")
        metrics.SILENCE.set_function(lambda: self._since(self._received_at))
        metrics.FEEDBACK_AGE.set_function(lambda: self._since(self._sent_at))

    def set_phase(self, phase: str) -> None:
        """Set the phase of the reader, one of `outhaul.cdc_reader.session.reader_state.PHASES`."""
        self._turned_at = self._clock()
        if phase in SESSION_PHASES and self._phase not in SESSION_PHASES:
            self._received_at = self._sent_at = self._turned_at
        self._phase = phase
        for name in PHASES:
            metrics.PHASE.labels(name).set(name == phase)

    def note_turn(self, now: float, received_at: float, sent_at: float) -> None:
        """Note a turn of a session's loop, the time of the last received frame, and of the last sent feedback."""
        self._turned_at, self._received_at, self._sent_at = now, received_at, sent_at

    def why_not_alive(self) -> str:
        """Return why the reader must be restarted; an empty text if it is alive."""
        now = self._clock()
        in_session = self._phase in SESSION_PHASES
        stuck_s = now - self._turned_at
        if stuck_s > (_TURN_S if in_session else _BETWEEN_S):
            return f"the loop has not turned for {stuck_s:.0f} s ({self._phase})"
        silent_s = now - self._received_at
        if in_session and silent_s > self._timeout_s + _GRACE_S:
            return f"no byte was received from Postgres for {silent_s:.0f} s"
        return ""

    def why_not_ready(self) -> str:
        """Return why the reader is not ready; an empty text if it owns the slot or stands by for it."""
        if self._phase in SESSION_PHASES or self._phase == "standing_by":
            return self.why_not_alive()
        return f"the reader is {self._phase}"

    def _since(self, when: float) -> float:
        # The loop reads the clock once a turn, so the noted time may be slightly before the message was sent.
        return max(0.0, self._clock() - max(when, 0.0)) if self._phase in SESSION_PHASES else 0.0

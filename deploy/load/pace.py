"""A rate and the clock -> how long to wait before the next events.

Pure. Counted from the beginning, so that a pause is caught up with and nothing drifts; but never by more than a
second's worth, or a writer that was away would come back as a flood.
"""

from __future__ import annotations

_BURST_S = 1.0


class Pace:
    """So many events a second, from a moment on."""

    def __init__(self, rate: float, now: float) -> None:
        """Begin; a rate of 0 is as fast as it goes. `now` is any clock in seconds that never goes back."""
        self._rate = rate
        self._due_at = now

    def wait_s(self, events: int, now: float) -> float:
        """Return how long to wait before so many more events, and count them."""
        if not self._rate:
            return 0.0
        self._due_at = max(self._due_at, now - _BURST_S)
        wait_s = max(0.0, self._due_at - now)
        self._due_at += events / self._rate
        return wait_s

"""A rate and the clock -> how long to wait before the next events.

Pure. The times are computed from the start, so that the rate does not drift and a writer catches up after a pause. It
catches up at most one second, so that a writer does not send a large burst after a long outage.
"""

from __future__ import annotations

_BURST_S = 1.0


class Pace:
    """The times of events at a fixed rate."""

    def __init__(self, rate: float, now: float) -> None:
        """Start at `now`, in seconds of any monotonic clock. `rate` is in events a second; 0 sets no limit."""
        self._rate = rate
        self._due_at = now

    def wait_s(self, events: int, now: float) -> float:
        """Return how many seconds to wait before the next `events` events, and count these."""
        if not self._rate:
            return 0.0
        self._due_at = max(self._due_at, now - _BURST_S)
        wait_s = max(0.0, self._due_at - now)
        self._due_at += events / self._rate
        return wait_s

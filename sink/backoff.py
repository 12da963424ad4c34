"""Attempt number -> seconds to wait: exponential, capped, with jitter over the upper half.

Pure; the random number is an argument.

Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

_FIRST_S = 0.2
_MAX_DOUBLINGS = 32


def backoff_s(attempt: int, *, max_s: float, random: float) -> float:
    """Return how long to wait before the next attempt, in seconds.

    Args:
        attempt: number of attempts that have failed in a row, from 1.
        max_s: the longest wait.
        random: a number in [0, 1).
    """
    ceiling: float = min(max_s, _FIRST_S * 2 ** min(attempt - 1, _MAX_DOUBLINGS))
    # At least half of the ceiling: a very short wait would make a busy loop.
    return ceiling * (0.5 + random / 2)

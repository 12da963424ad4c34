"""An operator's word about pausing, and the clock -> whether rows may be taken from the stream.

Pure. A pause is a wish that outlives the reader (cdc_reader/session/pause_requests.py keeps it); the gate is what one
session
makes of it. It is shut until the first word has come, so that a reader which starts into a pause takes no row before
it knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from outhaul.sink.errors import Exit, FatalError

_LONGEST_S = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Pause:
    """Who paused, why, from when until when, in Unix seconds; without `until` it ends with `outhaul resume`."""

    since: float
    by: str
    reason: str
    until: float | None


@dataclass(frozen=True, slots=True)
class Wished:
    """The newest word: the pause that holds, if one does, and how many seconds of it are left, if it ends by itself."""

    pause: Pause | None = None
    left_s: float | None = None


class Gate:
    """Between socket and intake: open, or shut while a pause lasts."""

    def __init__(self) -> None:
        """Start shut: nothing has been heard."""
        self.is_unsure = True
        self._pause: Pause | None = None
        self._over_at = float("inf")

    def heard(self, wished: Wished, now: float) -> None:
        """Take in the newest word at clock `now`, in seconds."""
        self.is_unsure = False
        self._pause = wished.pause
        self._over_at = float("inf") if wished.left_s is None else now + wished.left_s

    def pause(self, now: float) -> Pause | None:
        """Return the pause that holds at `now`."""
        return self._pause if now < self._over_at else None

    def is_open(self, now: float) -> bool:
        """Tell whether rows may be taken at `now`."""
        return not self.is_unsure and self.pause(now) is None


def check_length(seconds: int) -> int:
    """Return how long a pause is to last, in seconds.

    Raises:
        FatalError: less than a second, or more than a year.
    """
    if not 0 < seconds <= _LONGEST_S:
        raise FatalError("a pause lasts a second at least and a year at most", exit_code=Exit.USAGE)
    return seconds

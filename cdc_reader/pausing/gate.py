"""An operator's word about pausing, and the clock -> whether rows may be taken from the stream.

Pure. A pause is a wish that outlives the reader (cdc_reader/pausing/wish.py keeps it); the gate is what one session
makes of it. It is shut until the first word has come, so that a reader which starts into a pause takes no row before
it knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS_S = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d{1,6}[dhms])+")
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


def parse_duration(text: str) -> int:
    """Read `90s`, `30m`, `2h`, `1d` or several of them in a row; return seconds.

    Raises:
        ValueError: it is none, nothing, or longer than a year.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"a duration looks like 90s, 30m, 2h or 1h30m, got {text!r}")
    seconds = sum(int(part[:-1]) * _UNITS_S[part[-1]] for part in re.findall(r"\d+[dhms]", text))
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError(f"a pause lasts a second at least and a year at most, got {text!r}")
    return seconds

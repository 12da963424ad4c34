"""The newest pause request, a stop, and the clock -> whether rows may be taken from the stream.

Pure. A pause request outlives the reader (cdc_reader/session/pause_requests.py stores it); the gate applies it in one
session. The gate is shut until the request is known, so a reader that starts during a pause takes no row.

Source: docs/adr/0007-a-pause-is-kept-in-clickhouse.md
"""

from __future__ import annotations

from dataclasses import dataclass

from outhaul.sink.errors import Exit, FatalError

_LONGEST_S = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Pause:
    """Who paused and why, its start and end in Unix seconds; without `until` it ends with `outhaul resume`."""

    since: float
    by: str
    reason: str
    until: float | None


@dataclass(frozen=True, slots=True)
class PauseRequest:
    """The pause that is in force, or None; `left_s` is its rest in seconds, None if it has no end."""

    pause: Pause | None = None
    left_s: float | None = None


class Gate:
    """Decides whether the reader reads rows: open, or shut during a pause, and for good once the reader drains."""

    def __init__(self) -> None:
        """Start shut: the request is not known yet."""
        self.is_unknown = True
        self.draining_since: float | None = None
        self._pause: Pause | None = None
        self._ends_at = float("inf")

    def update(self, request: PauseRequest, now: float) -> None:
        """Set the newest request at clock `now`, in seconds."""
        self.is_unknown = False
        self._pause = request.pause
        self._ends_at = float("inf") if request.left_s is None else now + request.left_s

    def drain(self, now: float) -> None:
        """Shut for good at clock `now`, since the reader stops."""
        self.draining_since = now

    @property
    def is_draining(self) -> bool:
        """Whether the reader stops, and only waits for the batches in flight."""
        return self.draining_since is not None

    def pause(self, now: float) -> Pause | None:
        """Return the pause that is in force at `now`, or None."""
        return self._pause if now < self._ends_at else None

    def is_open(self, now: float) -> bool:
        """Tell whether rows may be taken at `now`."""
        return not self.is_unknown and not self.is_draining and self.pause(now) is None


def check_length(seconds: int) -> int:
    """Return the length of a pause, in seconds.

    Raises:
        FatalError: the length is less than a second or more than a year.
    """
    if not 0 < seconds <= _LONGEST_S:
        raise FatalError("a pause lasts a second at least and a year at most", exit_code=Exit.USAGE)
    return seconds

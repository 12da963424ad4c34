"""An error of some kind -> whether to report it: a lasting failure from time to time, a short one never.

Pure, except for a lock; the clock is an argument. A thousand errors in an hour without ClickHouse become four reports.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

# Shorter failures are not reported, since retries handle them; in seconds.
LASTING_S = 60.0
# Time between two reports of one kind from one process, in seconds.
APART_S = 900.0
_MOST_KINDS = 256


@dataclass(slots=True)
class _Kind:
    """When the failure began, was last seen and was last reported, in seconds of the clock; unreported errors since."""

    since: float | None = None
    seen_at: float = 0.0
    reported_at: float = float("-inf")
    unreported: int = 0


@dataclass(frozen=True, slots=True)
class Occurrences:
    """How often an error occurred since the last report of its kind, and how long the failure has lasted."""

    times: int
    lasting_s: float


class Throttle:
    """Limits the reports of each kind of error; usable from several threads."""

    def __init__(self, clock: Callable[[], float], quiet_s: float) -> None:
        """Start without any failure; a failure without an error for `quiet_s` seconds is over."""
        self._clock = clock
        self._quiet_s = quiet_s
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, key: Hashable, *, at_once: bool) -> Occurrences | None:
        """Add one error; return its occurrences if it must be reported now, else None.

        Args:
            key: kind of the error.
            at_once: whether to report the error even if the failure has not lasted for LASTING_S.
        """
        now = self._clock()
        with self._lock:
            kind = self._kinds.setdefault(key, _Kind())
            self._kinds.move_to_end(key)
            if len(self._kinds) > _MOST_KINDS:
                self._kinds.popitem(last=False)
            if kind.since is None or now - kind.seen_at > self._quiet_s:
                kind.since = now
            kind.seen_at = now
            kind.unreported += 1
            lasting_s = now - kind.since
            if (lasting_s < LASTING_S and not at_once) or now - kind.reported_at < APART_S:
                return None
            occurrences = Occurrences(kind.unreported, lasting_s)
            kind.reported_at, kind.unreported = now, 0
            return occurrences

    def recovered(self) -> None:
        """Record that operations succeed again: the next error begins a new failure."""
        with self._lock:
            for kind in self._kinds.values():
                kind.since = None

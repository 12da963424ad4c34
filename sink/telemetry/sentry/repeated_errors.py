"""One more error of a kind -> tell of it or not: a trouble that lasts is told once in a while, a short one never.

Pure; the clock comes in as an argument. A ClickHouse that is away for an hour is a thousand errors and four events.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

# Shorter troubles are what retries are for.
LASTING_S = 60.0
# Of one kind from one process, in seconds.
APART_S = 900.0
_MOST_KINDS = 256


@dataclass(slots=True)
class _Kind:
    """By the clock, in seconds: when it began, was seen last, and was told last; how many were not told since."""

    since: float | None = None
    seen_at: float = 0.0
    told_at: float = float("-inf")
    untold: int = 0


@dataclass(frozen=True, slots=True)
class Telling:
    """What to say beside the error: how often it came since the last time, and for how long it has lasted."""

    times: int
    lasting_s: float


class Patience:
    """What goes wrong, by kind; usable from several threads."""

    def __init__(self, clock: Callable[[], float], quiet_s: float) -> None:
        """Start calm; a trouble that is not seen for `quiet_s` seconds is over."""
        self._clock = clock
        self._quiet_s = quiet_s
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, key: Hashable, *, at_once: bool) -> Telling | None:
        """Take in one more error; return what to tell, or None. What is not told `at_once` has to last first."""
        now = self._clock()
        with self._lock:
            kind = self._kinds.setdefault(key, _Kind())
            self._kinds.move_to_end(key)
            if len(self._kinds) > _MOST_KINDS:
                self._kinds.popitem(last=False)
            if kind.since is None or now - kind.seen_at > self._quiet_s:
                kind.since = now
            kind.seen_at = now
            kind.untold += 1
            lasting_s = now - kind.since
            if (lasting_s < LASTING_S and not at_once) or now - kind.told_at < APART_S:
                return None
            telling = Telling(kind.untold, lasting_s)
            kind.told_at, kind.untold = now, 0
            return telling

    def over(self) -> None:
        """Note that things work again: whatever comes next has to last anew."""
        with self._lock:
            for kind in self._kinds.values():
                kind.since = None

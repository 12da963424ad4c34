"""What is wrong, look by look -> what is wrong now and since when, and what was wrong before.

Pure, with state from look to look. Lines differ in their figures while they mean the same.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_FIGURES = re.compile(r"[0-9A-F]+/[0-9A-F]+|\d+(?:\.\d+)?(?: (?:B|kB|MB|GB|TB))?")
_KEPT = 20


@dataclass(slots=True)
class Trouble:
    """A line, and when it was first and last true (Unix seconds)."""

    text: str
    since: float
    until: float


class Troubles:
    """All that is wrong now, and the last that were."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._now: dict[str, Trouble] = {}
        self._past: deque[Trouble] = deque(maxlen=_KEPT)

    def add(self, at: float, lines: Iterable[str]) -> None:
        """Take what is wrong at a time."""
        found: dict[str, Trouble] = {}
        for line in lines:
            key = _FIGURES.sub("#", line)
            since = self._now[key].since if key in self._now else at
            found[key] = Trouble(line, since, at)
        for key, trouble in self._now.items():
            if key not in found:
                self._past.appendleft(trouble)
        self._now = found

    @property
    def now(self) -> list[Trouble]:
        """What is wrong, the longest first."""
        return sorted(self._now.values(), key=lambda trouble: trouble.since)

    @property
    def past(self) -> list[Trouble]:
        """What was wrong, the latest first."""
        return list(self._past)

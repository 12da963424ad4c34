"""Problems at each poll -> what is wrong now and since when, and what was wrong before.

Pure, with state from one poll to the next. Two lines that differ only in their figures are the same problem.
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
class Problem:
    """A problem, and when it was first and last seen (Unix seconds)."""

    text: str
    since: float
    until: float


class ProblemHistory:
    """All problems of now, and the latest past ones."""

    def __init__(self) -> None:
        """Begin without problems."""
        self._now: dict[str, Problem] = {}
        self._past: deque[Problem] = deque(maxlen=_KEPT)

    def add(self, at: float, lines: Iterable[str]) -> None:
        """Add the problems of a time in Unix seconds."""
        found: dict[str, Problem] = {}
        for line in lines:
            key = _FIGURES.sub("#", line)
            since = self._now[key].since if key in self._now else at
            found[key] = Problem(line, since, at)
        for key, problem in self._now.items():
            if key not in found:
                self._past.appendleft(problem)
        self._now = found

    @property
    def now(self) -> list[Problem]:
        """What is wrong now, the oldest problem first."""
        return sorted(self._now.values(), key=lambda problem: problem.since)

    @property
    def past(self) -> list[Problem]:
        """What was wrong, the latest problem first."""
        return list(self._past)

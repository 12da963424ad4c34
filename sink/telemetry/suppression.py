"""A line that repeats itself -> the first one at once, then one now and then, with the number left out.

Pure but for a lock: the clock comes in as an argument. An hour of a dead ClickHouse is a few lines from each process,
not thousands. Only warnings and worse are counted, since they alone come by the thousand when nothing works.

Edge of it: a processor of structlog for our own lines, a filter of `logging` for those of Celery and other libraries.

Source: https://www.structlog.org/en/stable/processors.html#filtering
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from structlog.typing import EventDict

# Seconds between two lines of the same kind: the first repetition is written after 10 s at the earliest, and so on.
GAPS_S = (10.0, 30.0, 60.0, 120.0, 300.0)
# What was not seen for so long is news again; longer than any two attempts at the same thing are apart.
_FORGOTTEN_S = 120.0
_MOST_KINDS = 256

_COUNTED = {"warning", "error", "critical", "exception"}
_NUMBERS = re.compile(r"\d+")
_SHOWN_CHARACTERS = 60


@dataclass(slots=True)
class _Kind:
    """When a kind of line was written and seen last, by the clock in seconds; its lines, and those left out, since."""

    written_at: float
    seen_at: float
    times: int = 0
    left_out: int = 0


class Repetition:
    """Which lines have been written lately; usable from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start empty; `clock` counts seconds and never goes back."""
        self._clock = clock
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, key: Hashable) -> int | None:
        """Return how many lines of this kind were left out since the last one, or None: leave this one out, too."""
        now = self._clock()
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None:
                self._kinds[key] = _Kind(now, now)
                if len(self._kinds) > _MOST_KINDS:
                    self._kinds.popitem(last=False)
                return 0
            self._kinds.move_to_end(key)
            is_news = now - kind.seen_at >= _FORGOTTEN_S
            kind.seen_at = now
            if not is_news and now - kind.written_at < GAPS_S[min(kind.times, len(GAPS_S) - 1)]:
                kind.left_out += 1
                return None
            left_out, kind.left_out = kind.left_out, 0
            kind.written_at, kind.times = now, 0 if is_news else kind.times + 1
            return left_out

    def processor(self, logger: object, name: str, event: EventDict) -> EventDict:  # noqa: ARG002 - structlog's form
        """Let a line of ours through, or not.

        Raises:
            structlog.DropEvent: it repeats what was said a moment ago.
        """
        if name not in _COUNTED:
            return event
        left_out = self.admit(
            (event.get("event"), event.get("where"), *map(_kind, (event.get("reason"), event.get("error"))))
        )
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            event["repeated"] = left_out
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a line of a library through, or not; ours have been asked before."""
        if isinstance(record.msg, dict) or record.levelno < logging.WARNING:
            return True
        left_out = self.admit((record.name, str(record.msg)))
        if left_out:
            record.msg = f"{record.getMessage()} (repeated={left_out})"
            record.args = ()
        return left_out is not None


def _kind(value: object) -> Hashable:
    """Return what makes two errors or reasons the same: class and codes, or a text with its numbers taken out."""
    if isinstance(value, BaseException):
        return type(value).__name__, getattr(value, "code", None), getattr(value, "exit_code", None)
    return None if value is None else _NUMBERS.sub("#", str(value))[:_SHOWN_CHARACTERS]

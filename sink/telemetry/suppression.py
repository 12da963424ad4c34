"""Repeated log line -> written the first time, then at growing intervals, with the number of suppressed lines.

Pure, except for a lock; the clock is an argument. If ClickHouse is down for an hour, each process writes a few lines,
not thousands. Only warnings and errors are suppressed: only these come in thousands during a failure.

Outhaul's own lines pass through `processor`, a processor of structlog. Lines of Celery and other libraries pass through
`filter`, a filter of `logging`.

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

# Seconds between two lines of the same kind: the first repetition is written after 10 s at the earliest, the second
# 30 s after the first, and so on.
GAPS_S = (10.0, 30.0, 60.0, 120.0, 300.0)
# A line that did not occur for this time, in seconds, is written again at once. It is longer than the time between two
# attempts at the same operation.
_FORGOTTEN_S = 120.0
_MOST_KINDS = 256

_COUNTED = {"warning", "error", "critical", "exception"}
_NUMBERS = re.compile(r"\d+")
_SHOWN_CHARACTERS = 60


@dataclass(slots=True)
class _Kind:
    """When a kind of line was last written and last seen, in seconds of the clock; its repetitions; suppressed lines.

    `times` counts the lines written after the first; `left_out` the lines suppressed since the last written one.
    """

    written_at: float
    seen_at: float
    times: int = 0
    left_out: int = 0


class Suppression:
    """Decides which repeated lines are written; usable from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start without any line; `clock` is a monotonic clock in seconds."""
        self._clock = clock
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, key: Hashable) -> int | None:
        """Return how many lines of this kind were suppressed since the last written one, or None: suppress this one."""
        now = self._clock()
        with self._lock:
            kind = self._kinds.get(key)
            if kind is None:
                self._kinds[key] = _Kind(now, now)
                if len(self._kinds) > _MOST_KINDS:
                    self._kinds.popitem(last=False)
                return 0
            self._kinds.move_to_end(key)
            is_new = now - kind.seen_at >= _FORGOTTEN_S
            kind.seen_at = now
            if not is_new and now - kind.written_at < GAPS_S[min(kind.times, len(GAPS_S) - 1)]:
                kind.left_out += 1
                return None
            left_out, kind.left_out = kind.left_out, 0
            kind.written_at, kind.times = now, 0 if is_new else kind.times + 1
            return left_out

    def processor(self, logger: object, name: str, event: EventDict) -> EventDict:  # noqa: ARG002 - structlog's form
        """Pass on one of outhaul's own lines, or suppress it.

        Raises:
            structlog.DropEvent: the line is suppressed.
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
        """Tell whether to write a library's line; outhaul's own lines have passed `processor` already."""
        if isinstance(record.msg, dict) or record.levelno < logging.WARNING:
            return True
        left_out = self.admit((record.name, str(record.msg)))
        if left_out:
            record.msg = f"{record.getMessage()} (repeated={left_out})"
            record.args = ()
        return left_out is not None


def _kind(value: object) -> Hashable:
    """Return the key of an error or reason: class and codes, or the text without numbers. Equal keys are one kind."""
    if isinstance(value, BaseException):
        return type(value).__name__, getattr(value, "code", None), getattr(value, "exit_code", None)
    return None if value is None else _NUMBERS.sub("#", str(value))[:_SHOWN_CHARACTERS]

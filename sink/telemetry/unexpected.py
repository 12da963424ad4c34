"""Exception that nobody foresaw, in any thread, task or library -> Sentry, and the listener of this process.

Edge: sentry-sdk, and hooks into the log. Every such exception ends as a line of the log at the level error: outhaul's
outermost lines write it with its traceback, and so do Celery, Tornado and the hook for threads. So the log is the one
place to watch. `processor` sees outhaul's own lines and `seen` those of libraries, before repetitions are suppressed.

Connections break at any time, and Celery repeats such an operation: these errors are expected. So is one pool process
that is killed; two within a minute are not.

Source: https://docs.python.org/3/library/logging.html#logrecord-attributes
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import kombu.exceptions
import redis
from billiard.exceptions import SoftTimeLimitExceeded, WorkerLostError
from celery.exceptions import TaskPredicate

from outhaul.sink.errors import PipelineError
from outhaul.sink.telemetry import metrics, sentry

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict

_EXPECTED = (
    PipelineError,
    ConnectionError,
    TimeoutError,
    redis.RedisError,
    kombu.exceptions.OperationalError,
    SoftTimeLimitExceeded,
    # With these a task tells Celery to run it again.
    TaskPredicate,
)
_ERRORS = {"error", "critical", "exception"}
_LOST_TWICE_S = 60.0
_MAX_CHARACTERS = 300

_listen: Callable[[BaseException], None] | None = None
_lost_at = float("-inf")
# What a listener logs must not reach it again.
_here = threading.local()


def begin(listen: Callable[[BaseException], None]) -> None:
    """Call `listen` with each unexpected exception of this process, in the thread that has logged it."""
    global _listen  # noqa: PLW0603 - one listener a process, as for Sentry
    _listen = listen


def is_unexpected(error: object) -> bool:
    """Tell whether nobody foresaw this exception."""
    return isinstance(error, Exception) and not isinstance(error, _EXPECTED)


def first_line(error: BaseException) -> str:
    """Return class and text of an exception in one line of printable characters."""
    text = next(iter(str(error).strip().splitlines()), "")
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:_MAX_CHARACTERS]


def printable(text: str) -> str:
    """Return a text with a mark in place of each character that could control a terminal."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def note(error: BaseException) -> None:
    """Count an unexpected exception, and report it to Sentry and the listener."""
    global _lost_at
    if getattr(_here, "is_busy", False):
        return
    if isinstance(error, WorkerLostError):
        before, _lost_at = _lost_at, time.monotonic()
        if _lost_at - before > _LOST_TWICE_S:
            return
    _here.is_busy = True
    try:
        metrics.unexpected()
        sentry.report_now(error)
        if _listen is not None:
            _listen(error)
    finally:
        _here.is_busy = False


def processor(_logger: object, name: str, event: EventDict) -> EventDict:
    """Note the exception of one of outhaul's own lines; a processor of structlog."""
    if name in _ERRORS and (error := _raised(event.get("exc_info"))) is not None and is_unexpected(error):
        note(error)
    return event


def seen(record: logging.LogRecord) -> bool:
    """Note the exception of a library's line; a filter of `logging` that every line passes."""
    if record.levelno >= logging.ERROR and not isinstance(record.msg, dict):
        arguments = record.args if isinstance(record.args, tuple) else ()
        for error in (_raised(record.exc_info), *arguments):
            if isinstance(error, BaseException) and is_unexpected(error):
                note(error)
                break
    return True


def _raised(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1] if exc_info else None

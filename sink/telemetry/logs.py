"""Events worth knowing -> one line each on standard error: JSON for machines, colours for people.

Edge: configures structlog, and sends the standard library's loggers (Celery, kombu, redis) the same way. On each line:
the batch at hand (sink/telemetry/log_context.py), no secret (sink/telemetry/scrub.py), and not the same thing over and
over
(sink/telemetry/suppression.py).

Source: https://www.structlog.org/en/stable/standard-library.html
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Literal

import kombu.exceptions
import redis
import structlog

from outhaul.sink.errors import PipelineError
from outhaul.sink.telemetry import sentry
from outhaul.sink.telemetry.scrub import Scrub
from outhaul.sink.telemetry.suppression import Repetition

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, Processor

# What these say is in their text; where they were raised helps nobody, and Celery prints it at every attempt.
_TOLD_BY_TEXT = (PipelineError, OSError, redis.RedisError, kombu.exceptions.KombuError)


def configure(
    log_format: Literal["auto", "json", "console"],
    *,
    level: str = "INFO",
    scrub: Scrub | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Set up logging for this process.

    Args:
        log_format: `auto` means colours on a terminal and JSON elsewhere.
        level: name of the lowest level that is written; at DEBUG, so is all that repeats itself.
        scrub: takes the settings' secrets out of each line.
        clock: for what repeats itself, in seconds.
    """
    json_lines = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    # Whoever looks that closely wants to see each of them.
    repetition = Repetition(clock) if level != "DEBUG" else None
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_needless_traceback,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *([repetition.processor] if repetition else []),
            *shared,
            _spell_out,
            sentry.breadcrumb,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    if repetition is not None:
        handler.addFilter(repetition.filter)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _Scrubbed(scrub or Scrub()),
                structlog.processors.JSONRenderer() if json_lines else structlog.dev.ConsoleRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # One line a task and one a connection attempt say nothing that ours do not.
    for chatty in ("celery.app.trace", "celery.worker.strategy", "celery.redirected", "kombu"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # They warn of what they raise, and whoever catches it logs it.
    for doubled in ("urllib3", "clickhouse_connect"):
        logging.getLogger(doubled).setLevel(logging.ERROR)


def watch_threads() -> None:
    """Write a line about a thread that ends by an error nobody expected, where Python would print a bare traceback."""
    threading.excepthook = _tell_of_thread


class _Scrubbed:
    """The last step before a line is written: no secret passes."""

    def __init__(self, scrub: Scrub) -> None:
        self._scrub = scrub

    def __call__(self, _logger: object, _name: str, event: EventDict) -> EventDict:
        return {key: self._scrub.value(value) for key, value in event.items()}


def _spell_out(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Turn an error into its text, class and code."""
    error = event.get("error")
    if isinstance(error, BaseException):
        event["error"] = str(error) or type(error).__name__
        event.setdefault("kind", type(error).__name__)
        if (code := getattr(error, "code", None)) is not None:
            event.setdefault("code", code)
    return event


def _without_needless_traceback(_logger: object, _name: str, event: EventDict) -> EventDict:
    match event.get("exc_info"):
        case (_, BaseException() as error, _) if isinstance(error, _TOLD_BY_TEXT):
            del event["exc_info"]
            event.setdefault("error", f"{type(error).__name__}: {error}")
    return event


def _tell_of_thread(args: threading.ExceptHookArgs) -> None:
    error = args.exc_value
    if error is None or isinstance(error, SystemExit):
        return
    name = args.thread.name if args.thread else "unknown"
    expected = isinstance(error, _TOLD_BY_TEXT)
    log = structlog.get_logger("outhaul")
    log.error("thread_ended", thread=name, error=error, **({} if expected else {"exc_info": error}))
    sentry.stopped(error)

"""Log event -> one line on standard error: JSON for machines, colours for people.

Edge: standard error. This file configures structlog, and formats the lines of the standard library's loggers (Celery,
kombu, redis) in the same way. Each line has the names of the current batch (sink/telemetry/log_context.py). Secrets are
removed (sink/telemetry/scrub.py), and repeated lines are suppressed (sink/telemetry/suppression.py).

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
from outhaul.sink.telemetry import log_context, sentry, unexpected
from outhaul.sink.telemetry.scrub import Scrub, scrub_of
from outhaul.sink.telemetry.suppression import Suppression

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, Processor

    from outhaul.sink.settings import Settings

# The text of these errors suffices. A traceback does not help an operator, and Celery would print it at every attempt.
_WITHOUT_TRACEBACK = (PipelineError, OSError, redis.RedisError, kombu.exceptions.KombuError)


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
        level: name of the lowest level that is written; at DEBUG, repeated lines are written, too.
        scrub: removes the settings' secrets from each line.
        clock: monotonic clock in seconds, for the suppression of repeated lines.
    """
    json_lines = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    # An operator who sets DEBUG wants to see every line.
    suppression = Suppression(clock) if level != "DEBUG" else None
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
            unexpected.processor,
            *([suppression.processor] if suppression else []),
            *shared,
            _expand_error,
            sentry.breadcrumb,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(unexpected.seen)
    if suppression is not None:
        handler.addFilter(suppression.filter)
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
    # These write a line for each task and each connection attempt; outhaul's own lines contain the same.
    for chatty in ("celery.app.trace", "celery.worker.strategy", "celery.redirected", "kombu"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # These log a warning and raise the same as an error; the code that catches the error logs it.
    for doubled in ("urllib3", "clickhouse_connect"):
        logging.getLogger(doubled).setLevel(logging.ERROR)


def start(settings: Settings, *, level: str = "", **names: str) -> None:
    """Set up logging for a process that runs until it is stopped; `names` are on every line."""
    configure(settings.log_format, level=level or settings.log_level, scrub=scrub_of(settings))
    threading.excepthook = _log_thread_error
    log_context.begin(source=settings.source, **names)


class _Scrubbed:
    """The last processor before a line is written: removes secrets."""

    def __init__(self, scrub: Scrub) -> None:
        self._scrub = scrub

    def __call__(self, _logger: object, _name: str, event: EventDict) -> EventDict:
        return {key: self._scrub.value(value) for key, value in event.items()}


def _expand_error(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Replace an error by its text, class and code."""
    error = event.get("error")
    if isinstance(error, BaseException):
        event["error"] = str(error) or type(error).__name__
        event.setdefault("kind", type(error).__name__)
        if (code := getattr(error, "code", None)) is not None:
            event.setdefault("code", code)
    return event


def _without_needless_traceback(_logger: object, _name: str, event: EventDict) -> EventDict:
    match event.get("exc_info"):
        case (_, BaseException() as error, _) if isinstance(error, _WITHOUT_TRACEBACK):
            del event["exc_info"]
            event.setdefault("error", f"{type(error).__name__}: {error}")
    return event


def _log_thread_error(args: threading.ExceptHookArgs) -> None:
    error = args.exc_value
    if error is None or isinstance(error, SystemExit):
        return
    name = args.thread.name if args.thread else "unknown"
    expected = isinstance(error, _WITHOUT_TRACEBACK)
    log = structlog.get_logger("outhaul")
    log.error("thread_ended", thread=name, error=error, **({} if expected else {"exc_info": error}))
    sentry.report_now(error)

"""Events worth knowing -> one line each on standard error: JSON for machines, colours for people.

Edge: configures structlog, and sends the standard library's loggers (Celery, kombu, redis) the same way.

Source: https://www.structlog.org/en/stable/standard-library.html
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor


def configure(log_format: Literal["auto", "json", "console"], *, level: int = logging.INFO) -> None:
    """Set up logging for this process; `auto` means colours on a terminal and JSON elsewhere."""
    json_lines = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if json_lines
        else [structlog.dev.ConsoleRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
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

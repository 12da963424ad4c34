"""Unexpected exception or last error of a process -> a field of a hash in Redis; the hash -> lines for `status`.

Edge: Redis, whose clock measures the ages. Each kind of process on each host has one field, with its latest failure.
The hash expires some minutes after the last failure. If Redis does not take a line, the log, the metrics and Sentry
have it.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outhaul.sink.errors import PipelineError
from outhaul.sink.quantities import duration_text
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import failures_key
from outhaul.sink.seal import seal_of
from outhaul.sink.telemetry import sentry, unexpected
from outhaul.sink.telemetry.scrub import scrub_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.sink.settings import Settings

SHOWN_S = 300
"""How long a failure is shown, in seconds."""

PROCESSES = ("reader", "worker", "watchdog", "exporter", "flower", "prune")
_MAX_TEXT = 1000
# Fields of hosts that are gone; beyond this number, all are dropped, and those of hosts that still fail come back.
_MAX_FIELDS = 100


@dataclass(frozen=True, slots=True)
class Failure:
    """The latest failure of one kind of process on one host.

    `text` is the first line of the exception, `times` how often this process has failed so. `is_end` tells whether the
    process ended because of a known error, which a process that runs again may have left behind.
    """

    process: str
    host: str
    pid: int
    text: str
    times: int
    age_s: float
    is_end: bool

    def __str__(self) -> str:
        who = f"the {self.process} on {self.host} (process {self.pid})"
        ago = f"{duration_text(self.age_s)} ago" if self.age_s >= 1 else "just now"
        if self.is_end:
            return f"{who} ended {ago}: {self.text}"
        times = f", {self.times} times" if self.times > 1 else ""
        return f"{who} failed unexpectedly {ago}{times}: {self.text}. Its log has the traceback"


class Reporter:
    """Writes the failures of this process to Redis."""

    def __init__(self, settings: Settings, process: str) -> None:
        """Keep the address; no connection is opened yet.

        Raises:
            FatalError: the settings of Redis are invalid.
        """
        self._process = process
        self._key = failures_key(settings.source)
        self._seal = seal_of(settings)
        self._scrub = scrub_of(settings)
        self._payloads = Payloads.of(settings)
        self._times = 0

    def failed(self, error: BaseException) -> None:
        """Write an unexpected exception."""
        self._times += 1
        text = str(error) if isinstance(error, PipelineError) else unexpected.first_line(error)
        self._write(text, is_end=False)

    def ended(self, error: PipelineError) -> None:
        """Write the error that ends this process."""
        self._write(str(error), is_end=True)

    def _write(self, text: str, *, is_end: bool) -> None:
        host = socket.gethostname()
        with suppress(PipelineError):
            fact = {
                "process": self._process,
                "host": host,
                "pid": os.getpid(),
                "text": self._scrub.text(text)[:_MAX_TEXT],
                "times": self._times,
                "at": self._payloads.clock(),
                "is_end": is_end,
            }
            line = self._seal.line(self._key, json.dumps(fact))
            self._payloads.note(self._key, f"{self._process}@{host}", line, ttl_s=SHOWN_S, max_fields=_MAX_FIELDS)


_reporter: Reporter | None = None


def begin(settings: Settings, process: str) -> None:
    """Write unexpected exceptions of this process to Redis, and the error that ends it (`reporting_exit`)."""
    global _reporter  # noqa: PLW0603 - one a process, as the listener
    _reporter = Reporter(settings, process)
    unexpected.begin(_reporter.failed)


def failed(error: Exception) -> None:
    """Write an exception that is in no line of the log with its traceback."""
    if _reporter is not None:
        _reporter.failed(error)


@contextmanager
def reporting_exit() -> Iterator[None]:
    """Report the error that ends the block to Redis and to Sentry."""
    with sentry.reporting_exit():
        try:
            yield
        except PipelineError as error:
            if _reporter is not None:
                _reporter.ended(error)
            raise
        except Exception as error:
            # Python prints the traceback, and the hook of Sentry's client reports it.
            failed(error)
            raise


def recent(payloads: Payloads, settings: Settings) -> tuple[Failure, ...]:
    """Return the failures of the last minutes, the newest first; leave out what no process of this pipeline wrote.

    Raises:
        PipelineError: Redis refuses or does not answer.
    """
    key = failures_key(settings.source)
    lines = payloads.notes(key)
    if not lines:
        return ()
    now = payloads.clock()
    found = (failure for line in lines for failure in _read(seal_of(settings).opened_line(key, line), now))
    return tuple(sorted(found, key=lambda one: one.age_s))


def _read(line: bytes | None, now: float) -> Iterator[Failure]:
    with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
        data = json.loads(line or b"")
        age_s = max(0.0, now - float(data["at"]))
        process, host, text = (unexpected.printable(str(data[name])) for name in ("process", "host", "text"))
        if process in PROCESSES and age_s <= SHOWN_S:
            yield Failure(
                process, host[:255], int(data["pid"]), text[:_MAX_TEXT], int(data["times"]), age_s, bool(data["is_end"])
            )

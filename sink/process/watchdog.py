"""Celery's worker as a child -> a worker that runs: started again when it ends by itself, or has gone deaf.

Edge: processes and Redis. Celery on Redis is known to end, or to stop consuming without a word, when its connection
breaks at the wrong moment. Deaf is: messages wait, and for some time this worker has begun nothing and works on
nothing.

Source: https://github.com/celery/celery/discussions/7276
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from outhaul.sink.backoff import backoff_s
from outhaul.sink.errors import FatalError, PipelineError
from outhaul.sink.process.worker_pages import WorkerPages
from outhaul.sink.redis.payloads import DEAF_S, Payloads
from outhaul.sink.redis_keys import pulse_key
from outhaul.sink.telemetry import sentry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.sink")

_LOOK_S = 2.0
_TICK_S = 0.1
_STOP_S = 30.0
# A worker that ran for so long was in order; its next end is a new one.
_SETTLED_S = 30.0
_PR_SET_PDEATHSIG = 1
# Found before any fork: a child of threads (metrics, Sentry's client) should look for nothing.
_prctl = ctypes.CDLL(None).prctl


@dataclass(slots=True)
class Hearing:
    """Since when messages wait though the worker does nothing, by the clock in seconds; None while all is well."""

    since: float | None = None

    def is_deaf(self, *, queued: int, has_pulse: bool, now: float) -> bool:
        """Take in one look at queue and pulse; tell whether the worker counts as deaf by now."""
        if not queued or has_pulse:
            self.since = None
            return False
        if self.since is None:
            self.since = now
        return now - self.since >= DEAF_S


def supervise(settings: Settings, arguments: Sequence[str], random: Callable[[], float]) -> int:
    """Run Celery's worker until SIGTERM or SIGINT; return the exit code.

    Args:
        settings: the pipeline's settings.
        arguments: Celery's options for its worker.
        random: for the jitter between two starts.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _frame: asked.append(signum))
    payloads = Payloads(settings.redis_url.get_secret_value(), settings.source)
    pages = WorkerPages(settings)
    try:
        return _supervise(settings, arguments, random, payloads, pages, asked)
    finally:
        pages.close()


def _supervise(
    settings: Settings,
    arguments: Sequence[str],
    random: Callable[[], float],
    payloads: Payloads,
    pages: WorkerPages,
    asked: list[int],
) -> int:
    failures = 0
    while True:
        name = f"outhaul-{secrets.token_hex(4)}"
        # Workers need not know of each other: the reader tells by itself what is lost, and a start is a second shorter.
        alone = ["--without-mingle", "--without-gossip"]
        # -P: a file celery.py in the directory where the worker is started is the app's, and not Celery.
        command = [sys.executable, "-P", "-m", "celery", "-A", "outhaul.sink.app", "worker", "--hostname", f"{name}@%h"]
        command += [*alone, *arguments]
        # A group of its own, so that its children can be ended with it, and a terminal's Ctrl-C comes from us alone.
        worker = subprocess.Popen(
            command,
            env=os.environ | pages.environment,
            process_group=0,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - see there
        )
        pages.starting()
        started = time.monotonic()
        reason = _watch(worker, settings, payloads, pages, name, asked)
        _end(worker)
        if asked:
            return 0
        pages.ended(reason.partition(":")[0].partition(" ")[0])
        failures = 1 if time.monotonic() - started > _SETTLED_S else failures + 1
        wait_s = backoff_s(failures, max_s=settings.retry_max_s, random=random())
        log.error("worker_restarting", reason=reason, failures=failures, wait_s=round(wait_s, 2))
        sentry.stopped(FatalError(f"Celery's worker is started again: {reason}"))
        if _sleep(wait_s, asked):
            return 0


def _end_with_parent() -> None:
    # A watchdog that is killed takes Celery along, which puts its messages back. One call and no lock: the thread that
    # serves the metrics may hold any at this moment.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _watch(
    worker: subprocess.Popen[bytes],
    settings: Settings,
    payloads: Payloads,
    pages: WorkerPages,
    name: str,
    asked: list[int],
) -> str:
    """Return when the worker has ended, has gone deaf, or is to stop; and why."""
    hearing = Hearing()
    host = os.uname().nodename
    key = pulse_key(settings.source, f"{name}@{host}")
    while not _sleep(_LOOK_S, asked):
        pages.looked()
        if worker.poll() is not None:
            return f"ended with exit code {worker.returncode}"
        with suppress(PipelineError):
            queued, pulse = payloads.length(settings.queue_key), payloads.text(key) is not None
            if hearing.is_deaf(queued=queued, has_pulse=pulse, now=time.monotonic()):
                return f"deaf: {queued} messages wait, and no task has begun for {DEAF_S:.0f} s"
    worker.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while worker.poll() is None and time.monotonic() < deadline and len(asked) == 1:
        time.sleep(_TICK_S)
    return "told to stop"


def _end(worker: subprocess.Popen[bytes]) -> None:
    # The group outlives its leader: children of a worker that crashed may still be inserting.
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _sleep(seconds: float, asked: list[int]) -> bool:
    """Sleep, unless told to stop; return whether so."""
    deadline = time.monotonic() + seconds
    while not asked and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, _TICK_S))
    return bool(asked)

"""Celery's worker as a child process -> a worker that keeps running: started again after it ends or becomes deaf.

Edge: processes and Redis. It is known that Celery on Redis can end, or silently stop consuming, if its connection
breaks at certain moments. A worker is deaf if messages wait, and the worker has neither begun nor run a task for some
time.

Source: https://github.com/celery/celery/discussions/7276
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from outhaul.sink.backoff import backoff_s
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.process.worker_pages import WorkerPages
from outhaul.sink.redis import failures
from outhaul.sink.redis.payloads import DEAF_S, Payloads
from outhaul.sink.redis_keys import pulse_key
from outhaul.sink.stopping import sleep_unless, stop_signals
from outhaul.sink.telemetry import sentry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outhaul.sink.settings import Settings

log = structlog.get_logger("outhaul.sink")

_CHECK_S = 2.0
_TICK_S = 0.1
_STOP_S = 30.0
# A worker that ran longer than this, in seconds, had started correctly: the count of failures begins again.
_SETTLED_S = 30.0
# Imports what Celery's worker imports: the text of an error at that is only on the worker's standard error.
_IMPORT = (
    "import importlib; from outhaul.sink.app import app; [importlib.import_module(one) for one in app.conf.imports]"
)
_IMPORT_S = 30.0
_PR_SET_PDEATHSIG = 1
_OTHER_POOLS = ("-P", "--pool")
# Loaded before any fork: between fork and exec, the child of a process with threads (metrics, Sentry's client) must not
# load a library.
_prctl = ctypes.CDLL(None).prctl


@dataclass(slots=True)
class DeafCheck:
    """Time since when messages wait while the worker is idle, in seconds of the clock; None if that is not so."""

    since: float | None = None

    def is_deaf(self, *, queued: int, has_pulse: bool, now: float) -> bool:
        """Record one observation of queue and pulse; tell whether the worker counts as deaf now."""
        if not queued or has_pulse:
            self.since = None
            return False
        if self.since is None:
            self.since = now
        return now - self.since >= DEAF_S


def supervise(
    settings: Settings, arguments: Sequence[str], random: Callable[[], float], again: Callable[[], Settings]
) -> int:
    """Run Celery's worker until SIGTERM, SIGINT or SIGHUP; return the exit code.

    Args:
        settings: the pipeline's settings.
        arguments: Celery's options for its worker.
        random: random number in [0, 1), for the jitter of the wait before a restart.
        again: reads the settings again, and checks the servers: a worker may have ended since a password was changed.

    Raises:
        FatalError: a server refuses what a worker needs; a supervisor may start the watchdog with another environment.
            Or Celery's pool cannot work here.
    """
    check_pool(arguments)
    signals = stop_signals()
    with closing(WorkerPages(settings)) as pages:
        return _supervise(settings, arguments, random, again, pages, signals)


def _supervise(
    settings: Settings,
    arguments: Sequence[str],
    random: Callable[[], float],
    again: Callable[[], Settings],
    pages: WorkerPages,
    signals: list[int],
) -> int:
    ends = 0
    while True:
        name = f"outhaul-{secrets.token_hex(4)}"
        # Workers do not need to know each other: the reader finds lost batches itself. This makes a start one second
        # faster.
        no_peers = ["--without-mingle", "--without-gossip"]
        # -P: files in the current directory belong to the user's app, and must not be imported in place of a library.
        command = [sys.executable, "-P", "-m", "outhaul.sink.process.celery_worker", "--hostname", f"{name}@%h"]
        command += [*no_peers, *arguments]
        # A process group of its own: the watchdog can end the worker's children, too, and a terminal's Ctrl-C goes to
        # the watchdog only.
        worker = subprocess.Popen(
            command,
            env=os.environ | pages.environment,
            process_group=0,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call, no lock
        )
        pages.starting()
        started = time.monotonic()
        with Payloads.of(settings) as payloads:
            reason = _watch(worker, settings, payloads, pages, name, signals)
        _end(worker)
        if signals:
            return 0
        pages.ended(reason.partition(":")[0].partition(" ")[0])
        ends = 1 if time.monotonic() - started > _SETTLED_S else ends + 1
        wait_s = backoff_s(ends, max_s=settings.retry_max_s, random=random())
        if worker.returncode > 0:
            reason += _why_not_imported()
        log.error("worker_restarting", reason=reason, failures=ends, wait_s=round(wait_s, 2))
        error = FatalError(f"Celery's worker is started again: {reason}")
        sentry.report_now(error)
        if ends > 1 or worker.returncode > 0:
            # One that was killed works again soon.
            failures.failed(error)
        if sleep_unless(lambda: bool(signals), wait_s):
            return 0
        with suppress(TransientError):
            settings = again()


def check_pool(arguments: Sequence[str]) -> None:
    """Check that Celery's pool of processes can make semaphores; other pools need none.

    Raises:
        FatalError: it cannot.
    """
    if any(one.startswith(_OTHER_POOLS) for one in arguments):
        return
    try:
        multiprocessing.get_context("fork").Lock()
    except (OSError, ImportError) as error:
        raise FatalError(
            f"Celery's pool keeps semaphores in /dev/shm, but cannot make one there ({error})",
            todo="Make /dev/shm writable, with 1 MB free: `docker run --shm-size 64m`; in Kubernetes, mount an "
            "emptyDir of `medium: Memory` there. Or do without: `outhaul worker --pool solo`, one insert at a time",
            exit_code=Exit.SETTINGS,
        ) from error


def _why_not_imported() -> str:
    """Return the error with which the worker's modules cannot be imported, in brackets; empty if they can."""
    with suppress(subprocess.SubprocessError, OSError):
        done = subprocess.run(
            [sys.executable, "-P", "-c", _IMPORT],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_IMPORT_S,
            check=False,
        )
        if done.returncode:
            return f" ({next(iter(done.stderr.strip().splitlines()[-1:]), 'no error is printed')})"
    return ""


def _end_with_parent() -> None:
    # If the watchdog is killed, the kernel sends SIGTERM to Celery, and Celery returns its messages to the queue. This
    # is one system call and takes no lock: the thread that serves metrics may hold any lock during the fork.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _watch(
    worker: subprocess.Popen[bytes],
    settings: Settings,
    payloads: Payloads,
    pages: WorkerPages,
    name: str,
    signals: list[int],
) -> str:
    """Wait until the worker has ended, is deaf, or must stop; return the reason."""
    deaf_check = DeafCheck()
    host = os.uname().nodename
    key = pulse_key(settings.source, f"{name}@{host}")
    while not sleep_unless(lambda: bool(signals), _CHECK_S):
        pages.checked()
        if worker.poll() is not None:
            return f"ended with exit code {worker.returncode}"
        try:
            # A reader of the release before this one sends to a queue without a prefix.
            payloads.take_over(settings.queue, settings.queue_key)
            queued, pulse = payloads.length(settings.queue_key), payloads.text(key) is not None
            if deaf_check.is_deaf(queued=queued, has_pulse=pulse, now=time.monotonic()):
                return f"deaf: {queued} messages wait, and no task has begun for {DEAF_S:.0f} s"
        except TransientError:
            continue
        except FatalError as error:
            return f"ended: {error.message}"
    worker.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while worker.poll() is None and time.monotonic() < deadline and len(signals) == 1:
        time.sleep(_TICK_S)
    return "stopped by a signal"


def _end(worker: subprocess.Popen[bytes]) -> None:
    # The process group outlives its leader: children of a crashed worker may still be inserting.
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()

"""Settings -> Celery's workers and the queue, and the findings about them.

Edge: Celery's remote control, through Redis. Workers of other pipelines that share the Redis are left out.

Source: https://docs.celeryq.dev/en/stable/userguide/workers.html#inspecting-workers
"""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from redis import RedisError

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, warn
from outhaul.sink.app import configuration, make_app
from outhaul.sink.errors import Exit, TransientError
from outhaul.sink.process.probe import ProbeAnswer, message_of
from outhaul.sink.redis.failures import Failure, recent
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import ANY_WORKER, probe_key, pulse_key
from outhaul.sink.seal import seal_of
from outhaul.sink.task_names import PROBE, WRITE_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.sink.app import SinkApp
    from outhaul.sink.settings import Settings

# The number of workers is not known, so a ping waits this long; a busy machine gets a second, longer ping.
_WAITS_S = (1.0, 2.0)
_ANSWER_S = 2.0
# Seconds for the way of a task through a worker and ClickHouse; a batch without a row takes some hundredths.
_PROBE_S = 4.0
# A worker of the release before drops a probe that it takes, so another one is sent after this time, in seconds.
_PROBE_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker of the pipeline's queue; its limits in seconds, None if it does not report them."""

    name: str
    tasks: frozenset[str]
    soft_limit_s: float | None
    hard_limit_s: float | None
    visibility_timeout_s: float | None


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """Number of waiting messages, the workers that take them, and unexpected failures of any process.

    `probe` is the answer of a worker to a harmless task, None if none has answered in time. `is_busy` tells whether a
    task ran meanwhile.
    """

    queued: int
    workers: tuple[Worker, ...]
    probe: ProbeAnswer | None = None
    is_busy: bool = False
    failures: tuple[Failure, ...] = ()


def ask(settings: Settings) -> WorkerFacts:
    """Ask everything; waits a few seconds for workers that do not answer.

    Raises:
        PipelineError: Redis refuses or does not answer.
    """
    with Payloads.of(settings) as payloads, make_app(settings) as app:
        # First, because Celery retries for a long time before it reports that Redis does not answer.
        queued = payloads.length(settings.queue_key)
        try:
            found = _workers(app, settings.queue)
        except (OperationalError, RedisError, OSError) as error:
            raise TransientError(f"Redis does not answer Celery ({error})", exit_code=Exit.REDIS_UNREACHABLE) from error
        knowing = [worker for worker in found if PROBE in worker.tasks]
        answered = _probe(app, payloads, again=len(knowing) < len(found)) if knowing else None
        is_busy = payloads.text(pulse_key(settings.source, ANY_WORKER)) is not None
        # Asked last: the probe may have failed.
        return WorkerFacts(queued, found, answered, is_busy, recent(payloads, settings))


def _probe(app: SinkApp, payloads: Payloads, *, again: bool) -> ProbeAnswer | None:
    """Send a harmless task through a worker; return its answer, or None if none comes in time."""
    settings, run = app.settings, secrets.token_hex(16)
    key, seal = probe_key(settings.source, run), seal_of(settings)
    deadline, send_at = time.monotonic() + _PROBE_S, time.monotonic()
    try:
        while (now := time.monotonic()) < deadline:
            if now >= send_at:
                task_id = secrets.token_hex(16)
                app.send(
                    PROBE, message_of(settings.source, run), task_id=task_id, summary=f"probe of {socket.gethostname()}"
                )
                send_at = now + _PROBE_AGAIN_S if again else deadline
            for line in payloads.reports(key, wait_s=1):
                bare = seal.opened_line(key, line)
                if bare is not None and (answer := ProbeAnswer.from_json(bare)) is not None:
                    return answer
    finally:
        payloads.drop([key])
    return None


def judge(facts: WorkerFacts, settings: Settings) -> Iterator[Finding]:
    """Judge all answers."""
    yield workers(facts)
    if facts.workers:
        yield task(facts.workers)
        yield limits(facts.workers, settings)
        yield way(facts)
    yield queue(facts.queued, settings)
    yield from unexpected(facts.failures)


def workers(facts: WorkerFacts) -> Finding:
    """Judge whether a worker takes messages."""
    if facts.workers:
        return fine("workers", f"{len(facts.workers)}: {', '.join(worker.name for worker in facts.workers)}")
    if facts.queued:
        return fail("workers", f"no worker answers, and {facts.queued} messages wait", "outhaul worker")
    return warn("workers", "no worker answers", "outhaul worker")


def task(found: Sequence[Worker]) -> Finding:
    """Judge whether all workers have registered the task."""
    without = [worker.name for worker in found if WRITE_BATCH not in worker.tasks]
    if without:
        todo = "outhaul worker  # or: celery -A outhaul.sink.app worker"
        return fail("task", f"{', '.join(without)} do not know {WRITE_BATCH}: batches sent to them are lost", todo)
    return fine("task", WRITE_BATCH)


def way(facts: WorkerFacts) -> Finding:
    """Judge whether a harmless task has gone through a worker and ClickHouse, and its answer back."""
    check, answer = "a task", facts.probe
    if answer is not None:
        if answer.error:
            return fail(check, f"the worker on {answer.host} fails: {answer.error}", answer.todo or "Read its log")
        return fine(check, f"through {answer.host} and back in {answer.seconds:g} s")
    if not any(PROBE in worker.tasks for worker in facts.workers):
        return warn(
            check, "not tried: the workers are of a release that does not know the probe", "Upgrade the workers"
        )
    why = f"no worker has taken a harmless task and answered it within {_PROBE_S:g} s"
    if facts.is_busy or facts.queued:
        return warn(check, f"{why}; batches are before it", "outhaul status  # whether events are stored")
    return fail(check, why, "Read the worker's log, and start it again")


def unexpected(failures: Sequence[Failure]) -> Iterator[Finding]:
    """Judge whether a process has failed in a way that nobody foresaw."""
    found = [one for one in failures if not one.is_end]
    for one in found:
        yield fail("unexpected errors", str(one), f"Read the log of the {one.process} on {one.host}")
    if not found:
        yield fine("unexpected errors", "none")


def limits(found: Sequence[Worker], settings: Settings) -> Finding:
    """Judge whether all workers run with the limits of these settings."""
    ours = configuration(settings)
    wanted = (
        ours["task_soft_time_limit"],
        ours["task_time_limit"],
        ours["broker_transport_options"]["visibility_timeout"],
    )
    others = [
        f"{worker.name} {_printed(seen)}"
        for worker in found
        if (seen := (worker.soft_limit_s, worker.hard_limit_s, worker.visibility_timeout_s)) != wanted
    ]
    if others:
        return warn(
            "limits",
            f"{'; '.join(others)}, but the settings here say {_printed(wanted)}",
            "Restart reader and workers with the same OUTHAUL_* settings",
        )
    return fine("limits", f"{_printed(wanted)}, as set")


def queue(length: int, settings: Settings) -> Finding:
    """Judge the number of waiting messages."""
    if length > settings.max_in_flight:
        return warn(
            "queue",
            f"{length} messages wait, more than one reader sends ({settings.max_in_flight})",
            "outhaul worker  # start more; or check with `outhaul status` whether ClickHouse is slow",
        )
    return fine("queue", f"{length} messages wait")


def _printed(limits_s: Sequence[float | None]) -> str:
    soft, hard, visibility = ("?" if limit_s is None else f"{limit_s:g} s" for limit_s in limits_s)
    return f"task {soft} and {hard}, visibility {visibility}"


def _workers(app: SinkApp, our_queue: str) -> tuple[Worker, ...]:
    for wait_s in _WAITS_S:
        names = sorted(name for answer in app.control.ping(timeout=wait_s) for name in answer)
        if names:
            break
    else:
        return ()
    queues = _ask(app, names, "active_queues")
    ours = [name for name in names if any(queue["name"] == our_queue for queue in queues.get(name) or [])]
    tasks, stats = _ask(app, ours, "registered"), _ask(app, ours, "stats")
    return tuple(_read(name, tasks.get(name) or [], stats.get(name) or {}) for name in ours)


def _ask(app: SinkApp, names: Sequence[str], question: str) -> dict[str, Any]:
    """Return the answer of each of these workers, as soon as all have answered."""
    if not names:
        return {}
    asking = app.control.inspect(destination=list(names), timeout=_ANSWER_S)
    return getattr(asking, question)() or {}


def _read(name: str, tasks: Sequence[str], stats: dict[str, Any]) -> Worker:
    soft, hard = (*stats.get("pool", {}).get("timeouts", ()), None, None)[:2]
    options = stats.get("broker", {}).get("transport_options", {})
    # A registered task may have its rate limit after its name.
    known = frozenset(task.split(" ", 1)[0] for task in tasks)
    return Worker(name, known, soft, hard, options.get("visibility_timeout"))

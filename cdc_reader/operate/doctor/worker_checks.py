"""Settings -> Celery's workers and the queue, and the findings about them.

Edge: Celery's remote control, through Redis. Workers of other pipelines that share the Redis are left out.

Source: https://docs.celeryq.dev/en/stable/userguide/workers.html#inspecting-workers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from redis import RedisError

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, warn
from outhaul.sink.app import configuration, make_app
from outhaul.sink.errors import Exit, TransientError
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.task_names import WRITE_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.sink.app import SinkApp
    from outhaul.sink.settings import Settings

# The number of workers is not known, so a ping waits this long; a busy machine gets a second, longer ping.
_WAITS_S = (1.0, 2.0)
_ANSWER_S = 2.0


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
    """Number of waiting messages, and the workers that take them."""

    queued: int
    workers: tuple[Worker, ...]


def ask(settings: Settings) -> WorkerFacts:
    """Ask everything; waits a few seconds for workers that do not answer.

    Raises:
        PipelineError: Redis refuses or does not answer.
    """
    with Payloads.of(settings) as payloads:
        # First, because Celery retries for a long time before it reports that Redis does not answer.
        queued = payloads.length(settings.queue_key)
    with make_app(settings) as app:
        try:
            return WorkerFacts(queued, _workers(app, settings.queue))
        except (OperationalError, RedisError, OSError) as error:
            raise TransientError(f"Redis does not answer Celery ({error})", exit_code=Exit.REDIS_UNREACHABLE) from error


def judge(facts: WorkerFacts, settings: Settings) -> Iterator[Finding]:
    """Judge all answers."""
    yield workers(facts)
    if facts.workers:
        yield task(facts.workers)
        yield limits(facts.workers, settings)
    yield queue(facts.queued, settings)


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

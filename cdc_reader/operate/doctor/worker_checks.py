"""Settings -> what Celery's workers say of themselves; and the findings of that.

Edge: Celery's remote control, by way of Redis. Workers of other pipelines that share the Redis are left out.

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

# A ping waits for as long, since nobody knows how many will answer; a busy machine gets a second chance.
_WAITS_S = (1.0, 2.0)
_ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker of our queue; its limits in seconds, None where it does not tell."""

    name: str
    tasks: frozenset[str]
    soft_limit_s: float | None
    hard_limit_s: float | None
    visibility_timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Messages that wait, and who takes them."""

    queued: int
    workers: tuple[Worker, ...]


def ask(settings: Settings) -> Answer:
    """Ask everything; waits a few seconds for workers that do not answer.

    Raises:
        PipelineError: Redis refuses or does not answer.
    """
    payloads = Payloads(settings.redis_url.get_secret_value(), settings.source)
    try:
        # First, since Celery tries for long before it says that Redis is away.
        queued = payloads.length(settings.queue_key)
    finally:
        payloads.close()
    with make_app(settings) as app:
        try:
            return Answer(queued, _workers(app, settings.queue))
        except (OperationalError, RedisError, OSError) as error:
            raise TransientError(f"Redis does not answer Celery ({error})", exit_code=Exit.REDIS_UNREACHABLE) from error


def judge(answer: Answer, settings: Settings) -> Iterator[Finding]:
    """Judge all that was answered."""
    yield workers(answer)
    if answer.workers:
        yield task(answer.workers)
        yield limits(answer.workers, settings)
    yield queue(answer.queued, settings)


def workers(answer: Answer) -> Finding:
    """Judge whether anybody takes messages."""
    if answer.workers:
        return fine("workers", f"{len(answer.workers)}: {', '.join(worker.name for worker in answer.workers)}")
    if answer.queued:
        return fail("workers", f"none answers, and {answer.queued} messages wait", "outhaul worker")
    return warn("workers", "none answers", "outhaul worker")


def task(found: Sequence[Worker]) -> Finding:
    """Judge whether all workers know our task."""
    without = [worker.name for worker in found if WRITE_BATCH not in worker.tasks]
    if without:
        todo = "outhaul worker  # or: celery -A outhaul.sink.app worker"
        return fail("task", f"{', '.join(without)} do not know {WRITE_BATCH}: batches sent to them are lost", todo)
    return fine("task", WRITE_BATCH)


def limits(found: Sequence[Worker], settings: Settings) -> Finding:
    """Judge whether all workers run with the limits of our settings."""
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
            "Start reader and workers with the same OUTHAUL_* settings, the workers again",
        )
    return fine("limits", f"{_printed(wanted)}, as set")


def queue(length: int, settings: Settings) -> Finding:
    """Judge how many messages wait."""
    if length > settings.max_in_flight:
        return warn(
            "queue",
            f"{length} messages wait, more than one reader sends ({settings.max_in_flight})",
            "outhaul worker  # more of them; or see what ClickHouse does: outhaul status",
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
    """Return what each of these workers answers; comes back as soon as all have."""
    if not names:
        return {}
    asking = app.control.inspect(destination=list(names), timeout=_ANSWER_S)
    return getattr(asking, question)() or {}


def _read(name: str, tasks: Sequence[str], stats: dict[str, Any]) -> Worker:
    soft, hard = (*stats.get("pool", {}).get("timeouts", ()), None, None)[:2]
    options = stats.get("broker", {}).get("transport_options", {})
    # A registered task may carry its rate limit behind its name.
    known = frozenset(task.split(" ", 1)[0] for task in tasks)
    return Worker(name, known, soft, hard, options.get("visibility_timeout"))

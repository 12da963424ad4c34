"""Work of the sink -> Prometheus metrics of a worker.

Edge: a registry of its own; under the watchdog, the values are in files (sink/telemetry/multiprocess.py). The metrics
count work: if a worker dies after storing a batch and before reporting it, the batch is stored once and may be counted
twice. The reader's metrics count each event once. Labels are few and bounded: outcomes and error codes, never ids.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram

from outhaul.sink.report import Outcome
from outhaul.sink.telemetry import multiprocess

if TYPE_CHECKING:
    from outhaul.sink.batch import Message
    from outhaul.sink.report import Report

PREFIX = "outhaul_worker_"
REGISTRY = CollectorRegistry()

multiprocess.join()

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_TASKS = Counter(f"{PREFIX}tasks", "Runs of the task by what became of the batch", ["outcome"], registry=REGISTRY)
_EVENTS = Counter(f"{PREFIX}events_stored", "Events of batches that ClickHouse stored", registry=REGISTRY)
_BYTES = Counter(f"{PREFIX}bytes_stored", "Bytes of compressed payload that ClickHouse stored", registry=REGISTRY)
_REFUSED_BY_VIEWS = Counter(
    f"{PREFIX}events_refused_by_views", "Events that a materialized view refused", registry=REGISTRY
)
_DEAD_LETTERED = Counter(f"{PREFIX}events_dead_lettered", "Events that the sink set aside", registry=REGISTRY)
_ERRORS = Counter(f"{PREFIX}errors", "Errors by kind and ClickHouse code", ["kind", "code"], registry=REGISTRY)
_LOST = Counter(f"{PREFIX}reports_lost", "Attempts to tell the reader that Redis did not take", registry=REGISTRY)
_TASK = Histogram(
    f"{PREFIX}task_seconds", "Time from the start of a task to its outcome", buckets=_SECONDS, registry=REGISTRY
)
_INSERT = Histogram(
    f"{PREFIX}insert_seconds", "Time of one insert, whatever came of it", buckets=_SECONDS, registry=REGISTRY
)
_STAGES = Counter(f"{PREFIX}stage_seconds", "Time spent by stage of a task", ["stage"], registry=REGISTRY)
_FETCH_S, _INSERT_S, _REPORT_S = (_STAGES.labels(stage) for stage in ("fetch", "insert", "report"))

# Each label starts at 0: Prometheus computes no rate for a series that appears with its first count.
_UNREPORTED = ("refused", "forged")
for _outcome in (*(outcome.value for outcome in Outcome if outcome is not Outcome.BEGUN), *_UNREPORTED):
    _TASKS.labels(_outcome)
for _kind in ("transient", "fatal", "foreign", "unexpected"):
    _ERRORS.labels(_kind, "none")


def finished(message: Message, report: Report, seconds: float) -> None:
    """Count a finished task, and observe its duration."""
    _TASKS.labels(report.outcome.value).inc()
    _TASK.observe(seconds)
    if report.outcome is Outcome.STORED:
        _EVENTS.inc(message.rows)
        _BYTES.inc(message.size_bytes)
        _DEAD_LETTERED.inc(report.dead_letters)


def fetched(seconds: float) -> None:
    """Add the time of fetching a payload from Redis."""
    _FETCH_S.inc(seconds)


def inserted(seconds: float) -> None:
    """Add the time of an insert, successful or not."""
    _INSERT_S.inc(seconds)
    _INSERT.observe(seconds)


def view_refused(events: int) -> None:
    """Count events that a materialized view refused."""
    _REFUSED_BY_VIEWS.inc(events)


def reported(seconds: float) -> None:
    """Add the time of sending a report to the reader."""
    _REPORT_S.inc(seconds)


def report_lost() -> None:
    """Count a failed attempt to send a report to the reader."""
    _LOST.inc()


def retried(error: BaseException) -> None:
    """Count a transient error."""
    _TASKS.labels(Outcome.RETRYING.value).inc()
    _ERRORS.labels("transient", str(getattr(error, "code", None) or "none")).inc()


def refused(outcome: str = "refused") -> None:
    """Count a refused message: no reader of this pipeline has sent it, or a release that this worker cannot read.

    Args:
        outcome: `refused`; `forged` if the seal is invalid; or `other_version`.
    """
    _TASKS.labels(outcome).inc()
    _ERRORS.labels("foreign", "none").inc()


def failed(error: BaseException) -> None:
    """Count a fatal error."""
    _TASKS.labels(Outcome.FATAL.value).inc()
    _ERRORS.labels("fatal", str(getattr(error, "code", None) or "none")).inc()


def unexpected() -> None:
    """Count an exception that nobody foresaw."""
    _ERRORS.labels("unexpected", "none").inc()

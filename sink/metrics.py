"""What the sink did -> Prometheus counters.

Edge: prometheus-client's registry. Labels are few and bounded: outcomes and error classes, never ids.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

if TYPE_CHECKING:
    from sink.batch import Message
    from sink.report import Report

_TASKS = Counter("outhaul_sink_tasks", "Batches by what became of them", ["outcome"])
_ROWS = Counter("outhaul_sink_rows", "Rows that ClickHouse stored")
_BYTES = Counter("outhaul_sink_bytes", "Bytes of compressed payload that ClickHouse stored")
_DEAD_LETTERS = Counter("outhaul_sink_dead_letters", "Rows set aside as dead letters by the sink")
_ERRORS = Counter("outhaul_sink_errors", "Errors by kind and ClickHouse code", ["kind", "code"])
_SECONDS = Histogram("outhaul_sink_task_seconds", "Time from the start of a task to its outcome")


def finished(message: Message, report: Report, seconds: float) -> None:
    """Count a task that came to an end."""
    _TASKS.labels(report.outcome.value).inc()
    _SECONDS.observe(seconds)
    if report.outcome.value == "stored":
        _ROWS.inc(message.rows)
        _BYTES.inc(message.size_bytes)
        _DEAD_LETTERS.inc(report.dead_letters)


def retried(error: BaseException) -> None:
    """Count a transient error."""
    _ERRORS.labels("transient", str(getattr(error, "code", None) or "none")).inc()


def refused() -> None:
    """Count a message that no reader of this pipeline has sent."""
    _ERRORS.labels("foreign", "none").inc()


def failed(error: BaseException) -> None:
    """Count a fatal error."""
    _ERRORS.labels("fatal", str(getattr(error, "code", None) or "none")).inc()

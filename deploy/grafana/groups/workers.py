"""Metrics of the workers -> panels of tasks, their times and errors.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import UP, About, Query, lines
from outhaul.deploy.grafana.promql import per_second, quantile, ratio, times

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel


def workers() -> Group:
    """Return the group."""
    return Group(
        "Workers",
        (_tasks(), _seconds(), _insert(), _errors(), _lost(), _restarts(), _up(), _events(), _size()),
    )


def _tasks() -> Panel:
    return lines(
        "Tasks by outcome",
        About(
            "*stored*. *stale* and *missing* follow a takeover by another reader, and are harmless.",
            "*retrying*: ClickHouse is down or slow; *fatal*: ClickHouse refuses, see the worker's log; "
            "*refused*: not a message of this pipeline; *other_version*: upgrade the workers.",
            "runbooks/nothing-stored.md",
        ),
        Query(per_second("outhaul_worker_tasks_total", "outcome"), "{{outcome}} {{source}}"),
        unit="ops",
        stacked=True,
    )


def _times(title: str, about: About, metric: str) -> Panel:
    shares = (0.5, 0.95, 0.99)
    queries = (Query(quantile(share, metric), f"p{share * 100:g} {{{{source}}}}") for share in shares)
    return lines(title, about, *queries, unit="s")


def _seconds() -> Panel:
    return _times(
        "How long does a task take?",
        About(
            "tens of milliseconds; a second for a full batch.",
            "near `OUTHAUL_TASK_TIME_LIMIT_S`: tasks are killed, and their batches are sent again.",
            "runbooks/clickhouse-down.md",
        ),
        "outhaul_worker_task_seconds",
    )


def _insert() -> Panel:
    return _times(
        "How long does the insert take?",
        About(
            "most of the task's time.",
            "near `OUTHAUL_INSERT_TIMEOUT_S`: inserts are cut off and repeated; see the merges of ClickHouse.",
            "runbooks/clickhouse-down.md",
        ),
        "outhaul_worker_insert_seconds",
    )


def _errors() -> Panel:
    return lines(
        "Errors",
        About(
            "none.",
            "*transient* is retried automatically. *fatal* needs an operator. *unexpected*: `outhaul status` has the "
            "first line. The code is ClickHouse's: 252 too "
            "many parts, 241 memory, 516 login.",
            "runbooks/nothing-stored.md",
        ),
        Query(times("outhaul_worker_errors_total", "kind", "code", process="worker"), "{{kind}} {{code}} {{source}}"),
        unit="short",
        bars=True,
    )


def _lost() -> Panel:
    return lines(
        "Lost reports",
        About(
            "none.",
            "the batch was stored, but Redis did not accept the report: it is sent again and found stored.",
            "runbooks/redis-lost.md",
        ),
        Query(times("outhaul_worker_reports_lost_total", process="worker")),
        unit="short",
        bars=True,
    )


def _restarts() -> Panel:
    return lines(
        "Restarts by the watchdog",
        About(
            "none.",
            "*ended*: Celery's process died, perhaps for lack of memory. *deaf*: it took no messages, mostly after "
            "Redis was down.",
            "runbooks/nothing-stored.md",
        ),
        Query(times("outhaul_worker_restarts_total", "reason", process="worker"), "{{reason}} {{source}}"),
        unit="short",
        bars=True,
    )


def _up() -> Panel:
    return lines(
        "Workers with a running Celery",
        About(
            "as many as you run.",
            "the watchdog restarts Celery; if that fails, its log says why.",
            "runbooks/nothing-stored.md",
        ),
        Query('sum by (source) (outhaul_worker_up{source=~"$source"})'),
        unit="short",
        steps=UP,
    )


def _events() -> Panel:
    return lines(
        "Events stored and set aside",
        About(
            "stored follows what the reader captures; 0 set aside.",
            "set aside: dead letters. More stored than captured: batches were sent again.",
            "runbooks/dead-letters.md",
        ),
        Query(per_second("outhaul_worker_events_stored_total"), "stored {{source}}"),
        Query(per_second("outhaul_worker_events_dead_lettered_total"), "set aside {{source}}"),
        unit="eps",
    )


def _size() -> Panel:
    stored = per_second("outhaul_worker_events_stored_total")
    return lines(
        "Compressed bytes per event",
        About(
            "tens to hundreds.",
            "a jump: apps write larger contexts, or contexts that compress less.",
            "performance.md",
        ),
        Query(ratio(per_second("outhaul_worker_bytes_stored_total"), stored)),
        unit="bytes",
    )

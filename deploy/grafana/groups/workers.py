"""What are the workers doing? -> tasks, their times and errors.

Pure.
"""

from __future__ import annotations

from deploy.grafana.layout import Group
from deploy.grafana.panel import UP, About, Json, Query, lines
from deploy.grafana.promql import per_second, quantile, ratio, times


def workers() -> Group:
    """Return the group."""
    return Group(
        "Workers",
        (_tasks(), _seconds(), _insert(), _errors(), _lost(), _restarts(), _up(), _events(), _size()),
    )


def _tasks() -> Json:
    return lines(
        "Tasks by outcome",
        About(
            "*stored*. *stale* and *missing* come after a change of reader, and are harmless.",
            "*retrying*: ClickHouse is away or slow; *fatal*: it refuses, the worker's log says what; "
            "*refused*: not ours; *other_version*: upgrade the workers.",
            "runbooks/nothing-stored.md",
        ),
        Query(per_second("outhaul_worker_tasks_total", "outcome"), "{{outcome}} {{source}}"),
        unit="ops",
        stacked=True,
    )


def _times(title: str, about: About, metric: str) -> Json:
    shares = (0.5, 0.95, 0.99)
    queries = (Query(quantile(share, metric), f"p{share * 100:g} {{{{source}}}}") for share in shares)
    return lines(title, about, *queries, unit="s")


def _seconds() -> Json:
    return _times(
        "How long does a task take?",
        About(
            "tens of milliseconds; a second for a full batch.",
            "near `OUTHAUL_TASK_TIME_LIMIT_S` tasks are killed, and their batches sent again.",
            "runbooks/clickhouse-down.md",
        ),
        "outhaul_worker_task_seconds",
    )


def _insert() -> Json:
    return _times(
        "How long of that is the insert?",
        About(
            "most of it.",
            "near `OUTHAUL_INSERT_TIMEOUT_S` they are cut off and come again; see the merges of ClickHouse.",
            "runbooks/clickhouse-down.md",
        ),
        "outhaul_worker_insert_seconds",
    )


def _errors() -> Json:
    return lines(
        "Errors",
        About(
            "none.",
            "*transient* comes again by itself. *fatal* needs you. The code is ClickHouse' number: 252 too "
            "many parts, 241 memory, 516 login.",
            "runbooks/nothing-stored.md",
        ),
        Query(times("outhaul_worker_errors_total", "kind", "code", process="worker"), "{{kind}} {{code}} {{source}}"),
        unit="short",
        bars=True,
    )


def _lost() -> Json:
    return lines(
        "Reports lost",
        About(
            "none.",
            "stored, and Redis did not take the word: the batch is sent again and found stored.",
            "runbooks/redis-lost.md",
        ),
        Query(times("outhaul_worker_reports_lost_total", process="worker")),
        unit="short",
        bars=True,
    )


def _restarts() -> Json:
    return lines(
        "Restarts by the watchdog",
        About(
            "none.",
            "*ended*: Celery's process died, of memory perhaps. *deaf*: it took no messages, mostly after "
            "Redis was away.",
            "runbooks/nothing-stored.md",
        ),
        Query(times("outhaul_worker_restarts_total", "reason", process="worker"), "{{reason}} {{source}}"),
        unit="short",
        bars=True,
    )


def _up() -> Json:
    return lines(
        "Workers whose Celery runs",
        About(
            "as many as you run.",
            "the watchdog starts Celery again; if that does not help, its log says why.",
            "runbooks/nothing-stored.md",
        ),
        Query('sum by (source) (outhaul_worker_up{source=~"$source"})'),
        unit="short",
        steps=UP,
    )


def _events() -> Json:
    return lines(
        "Events stored and set aside",
        About(
            "as many as the reader captures; none set aside.",
            "set aside: dead letters. More than captured: batches that were sent again.",
            "runbooks/dead-letters.md",
        ),
        Query(per_second("outhaul_worker_events_stored_total"), "stored {{source}}"),
        Query(per_second("outhaul_worker_events_dead_lettered_total"), "set aside {{source}}"),
        unit="eps",
    )


def _size() -> Json:
    stored = per_second("outhaul_worker_events_stored_total")
    return lines(
        "Bytes of an event, compressed",
        About(
            "tens to hundreds.",
            "a jump: apps write more into `event_context`, or in another shape that compresses less.",
            "performance.md",
        ),
        Query(ratio(per_second("outhaul_worker_bytes_stored_total"), stored)),
        unit="bytes",
    )

"""Metrics of Redis and Celery's queue -> panels of response time, memory, and waiting messages.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import GREEN, ORANGE, RED, About, Query, Size, lines
from outhaul.deploy.grafana.promql import newest, server_per_second

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel

_QUARTER = Size(6, 8)


def redis() -> Group:
    """Return the group."""
    return Group("Redis and Celery's queue", (_queue(), _workers(), _ping(), _reporting(), _memory(), _evicted()))


def _queue() -> Panel:
    return lines(
        "Waiting messages",
        About(
            "0 to `OUTHAUL_MAX_IN_FLIGHT`: one message per batch.",
            "more: another program uses this queue. Flat above 0: no worker takes messages.",
            "runbooks/nothing-stored.md",
        ),
        Query(newest("outhaul_queue_messages")),
        unit="short",
        steps=((None, GREEN), (100, ORANGE)),
        size=_QUARTER,
    )


def _workers() -> Panel:
    return lines(
        "Workers that answer a ping",
        About(
            "as many as you run.",
            "fewer: a worker has ended, is frozen, or lost Redis; the watchdog restarts Celery within half a minute.",
            "runbooks/nothing-stored.md",
        ),
        Query(newest("outhaul_celery_workers")),
        unit="short",
        size=_QUARTER,
    )


def _ping() -> Panel:
    return lines(
        "Response time of Redis",
        About(
            "under a millisecond in one data centre.",
            "a slow command of another client (`SLOWLOG GET`), swapping, or the network.",
            "runbooks/redis-lost.md",
        ),
        Query(newest("outhaul_redis_ping_seconds")),
        unit="s",
        size=_QUARTER,
    )


def _reporting() -> Panel:
    return lines(
        "Does a reader report?",
        About(
            "yes: its state is in Redis, where `outhaul status` reads it.",
            "no reader runs, or it uses another Redis than the exporter.",
            "runbooks/reader-does-not-start.md",
        ),
        Query(newest("outhaul_reader_reporting")),
        unit="bool_yes_no",
        most=1,
        size=_QUARTER,
    )


def _memory() -> Panel:
    return lines(
        "Memory of Redis",
        About(
            "batches in flight and the data of other clients; far below the limit (`maxmemory`; 0: no limit).",
            "at the limit Redis refuses batches (exit code 32) or evicts them; the reader sends them again.",
            "runbooks/redis-lost.md",
        ),
        Query(newest("outhaul_redis_memory_used_bytes"), "used {{source}}"),
        Query(newest("outhaul_redis_memory_limit_bytes"), "limit {{source}}"),
        unit="bytes",
        size=Size(12, 8),
    )


def _evicted() -> Panel:
    return lines(
        "Keys evicted by Redis",
        About(
            "0.",
            "give Redis more memory, or set `maxmemory-policy noeviction`: the reader sends evicted batches again.",
            "runbooks/redis-lost.md",
        ),
        Query(server_per_second("outhaul_redis_evicted_keys_total")),
        unit="ops",
        steps=((None, GREEN), (0.01, RED)),
        size=Size(12, 8),
    )

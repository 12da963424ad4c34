"""Metrics of batches -> panels of their sizes, ages and number in flight.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import GREEN, RED, About, Query, Size, heatmap, lines
from outhaul.deploy.grafana.promql import buckets, newest, per_second, quantile

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel

_QUARTER = Size(6, 8)


def batches() -> Group:
    """Return the group."""
    return Group("Batches", (_events(), _bytes(), _seconds(), _rate(), _in_flight(), _held(), _age()))


def _events() -> Panel:
    return heatmap(
        "Batches by number of events",
        About(
            "small when idle, up to `OUTHAUL_BATCH_MAX_ROWS` with a backlog.",
            "many small batches under load: raise `OUTHAUL_LINGER_S`.",
            "performance.md",
        ),
        Query(buckets("outhaul_reader_batch_events"), "{{le}}"),
        unit="short",
    )


def _bytes() -> Panel:
    metric = "outhaul_reader_batch_bytes"
    return lines(
        "Size of a batch",
        About(
            "far below `OUTHAUL_BATCH_MAX_BYTES`: the compressed size in Redis.",
            "near that limit with few events: contexts are large, and reader and Redis need much memory.",
            "performance.md",
        ),
        Query(quantile(0.5, metric), "p50 {{source}}"),
        Query(quantile(0.99, metric), "p99 {{source}}"),
        unit="bytes",
    )


def _seconds() -> Panel:
    metric = "outhaul_reader_batch_seconds"
    return lines(
        "From packing a batch to stored",
        About(
            "under 0.2 s.",
            "longer than a worker's task: batches wait in the queue, so start more workers.",
            "performance.md",
        ),
        Query(quantile(0.5, metric), "p50 {{source}}"),
        Query(quantile(0.99, metric), "p99 {{source}}"),
        unit="s",
    )


def _rate() -> Panel:
    return lines(
        "Batches stored",
        About(
            "at most one per `OUTHAUL_LINGER_S`: five a second.",
            "0 while events come: see the workers below.",
            "runbooks/nothing-stored.md",
        ),
        Query(per_second("outhaul_reader_batches_stored_total")),
        unit="ops",
        size=_QUARTER,
    )


def _in_flight() -> Panel:
    return lines(
        "Batches in flight",
        About(
            "0 to 2; with a backlog `OUTHAUL_MAX_IN_FLIGHT`, 8.",
            "8 all the time: workers or ClickHouse are too slow, and the reader takes no more rows.",
            "runbooks/nothing-stored.md",
        ),
        Query(newest("outhaul_reader_batches_in_flight")),
        unit="short",
        size=_QUARTER,
    )


def _held() -> Panel:
    return lines(
        "Events and bytes in flight",
        About(
            "at most batches in flight times the largest batch; the reader and Redis both hold them.",
            "flat and high: the oldest batch is not stored, and the slot cannot pass it.",
            "runbooks/nothing-stored.md",
        ),
        Query(newest("outhaul_reader_events_in_flight"), "events {{source}}"),
        Query(newest("outhaul_reader_bytes_in_flight"), "bytes {{source}}"),
        unit="short",
        size=_QUARTER,
    )


def _age() -> Panel:
    return lines(
        "Age of the oldest batch in flight",
        About(
            "under a second.",
            "a climb: ClickHouse. The reader sends a batch again if its worker is silent for 5 s.",
            "runbooks/clickhouse-down.md",
        ),
        Query(newest("outhaul_reader_oldest_batch_age_seconds")),
        unit="s",
        steps=((None, GREEN), (60, RED)),
        size=_QUARTER,
    )

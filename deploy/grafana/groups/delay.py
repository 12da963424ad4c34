"""Metrics of lag -> panels of the age and size of what is not stored, and of the time that events take.

Pure.
"""

from __future__ import annotations

from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import GREEN, RED, About, Query, Size, heatmap, lines
from outhaul.deploy.grafana.promql import buckets, newest, quantile

_TAKEN = "outhaul_reader_commit_to_stored_seconds"
_QUARTER = Size(6, 8)


def delay() -> Group:
    """Return the group."""
    return Group(
        "How far behind?",
        (
            lines(
                "Age of the oldest commit not stored",
                About(
                    "under a second.",
                    "a straight climb: nothing is stored; a sawtooth: storing is slow.",
                    "runbooks/nothing-stored.md",
                ),
                Query(newest("outhaul_reader_lag_seconds")),
                unit="s",
                steps=((None, GREEN), (60, RED)),
                size=_QUARTER,
            ),
            lines(
                "WAL not confirmed",
                About(
                    "near 0. *received* is the WAL that the reader has received and not confirmed; *all* is the WAL "
                    "from the slot's confirmed position to the end.",
                    "*received* grows: workers or ClickHouse are slow. Only *all* grows: the reader takes no rows.",
                    "runbooks/wal-growing.md",
                ),
                Query(newest("outhaul_reader_lag_bytes"), "received {{source}}"),
                Query(newest("outhaul_slot_behind_bytes"), "all {{source}}"),
                unit="bytes",
                size=_QUARTER,
            ),
            lines(
                "From commit to stored",
                About(
                    "p50 under 0.2 s, p99 under a second; no line without events.",
                    "a backlog is being stored (then the line falls again), or inserts are slow.",
                    "performance.md",
                ),
                Query(quantile(0.5, _TAKEN), "p50 {{source}}"),
                Query(quantile(0.95, _TAKEN), "p95 {{source}}"),
                Query(quantile(0.99, _TAKEN), "p99 {{source}}"),
                unit="s",
                size=_QUARTER,
            ),
            heatmap(
                "Events by time from commit to stored",
                About(
                    "one bright band below a second.",
                    "a second band above it: some batches wait for a retry or for a worker.",
                    "performance.md",
                ),
                Query(buckets(_TAKEN), "{{le}}"),
                unit="s",
                size=_QUARTER,
            ),
        ),
    )

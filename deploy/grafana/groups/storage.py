"""Metrics of `event_log` and of the slot -> panels of months, and of what Postgres decodes.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import About, Query, Size, lines, table
from outhaul.deploy.grafana.promql import newest, server_per_second

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel


def storage() -> Group:
    """Return the group."""
    return Group(
        "Months of event_log, and decoding in Postgres", (_months(), _decoded(), _streamed(), _asked(), _last())
    )


def _months() -> Panel:
    metrics = ("events", "parts", "bytes_on_disk", "uncompressed_bytes")
    return table(
        "Months of event_log",
        About(
            "old months have few parts. Shows the newest 24 months, and all before as *older*.",
            "hundreds of parts in an old month: a backfill runs, or merges are stopped.",
            "runbooks/clickhouse-down.md",
        ),
        *(Query(newest(f"outhaul_clickhouse_{metric}", "partition")) for metric in metrics),
        unit="short",
        columns={
            "partition": "month",
            "source": "pipeline",
            "Value #A": "events",
            "Value #B": "parts",
            "Value #C": "on disk",
            "Value #D": "unpacked",
        },
        units={"on disk": "bytes", "unpacked": "bytes"},
        sort="month",
        size=Size(12, 16),
    )


def _decoded() -> Panel:
    return lines(
        "Transactions that Postgres decodes for the slot",
        About(
            "*all*: every transaction that writes to the outbox. *spilled* and *streamed*: 0, except very large ones.",
            "0 while apps write: no reader streams from the slot.",
            "runbooks/wal-growing.md",
        ),
        *_counters("transactions"),
        unit="ops",
        size=Size(12, 8),
    )


def _streamed() -> Panel:
    return lines(
        "Bytes that Postgres decodes for the slot",
        About(
            "a little more than the reader captures.",
            "far more: the publication has other tables, or operations other than inserts.",
            "operations.md",
        ),
        *_counters("bytes"),
        unit="Bps",
        size=Size(12, 8),
    )


def _counters(what: str) -> tuple[Query, ...]:
    return (
        Query(server_per_second(f"outhaul_slot_{what}_total"), "all {{source}}"),
        Query(server_per_second(f"outhaul_slot_spilled_{what}_total"), "spilled {{source}}"),
        Query(server_per_second(f"outhaul_slot_streamed_{what}_total"), "streamed {{source}}"),
    )


def _asked() -> Panel:
    return lines(
        "Queries of event_log",
        About(
            "depends on your users; only if `system.query_log` exists.",
            "a jump can explain slow inserts.",
            "runbooks/clickhouse-down.md",
        ),
        Query(newest("outhaul_clickhouse_queries")),
        unit="short",
        empty="no query_log",
        size=Size(12, 8),
    )


def _last() -> Panel:
    return lines(
        "Time since the last event was stored",
        About(
            "under a second while events come; climbs without events.",
            "a climb while events come: nothing is stored.",
            "runbooks/nothing-stored.md",
        ),
        Query(f"time() - {newest('outhaul_clickhouse_last_stored_timestamp_seconds')}"),
        unit="s",
        size=Size(12, 8),
    )

"""What is in ClickHouse, and what does Postgres decode? -> months of `event_log`, and the slot's counters.

Pure.
"""

from __future__ import annotations

from deploy.grafana.layout import Group
from deploy.grafana.panel import About, Json, Query, Size, lines, table
from deploy.grafana.promql import newest, server_per_second


def storage() -> Group:
    """Return the group."""
    return Group(
        "Months of event_log, and what Postgres decodes", (_months(), _decoded(), _streamed(), _asked(), _last())
    )


def _months() -> Json:
    metrics = ("events", "parts", "bytes_on_disk", "uncompressed_bytes")
    return table(
        "Months of event_log",
        About(
            "old months in few parts; the newest 24, the rest as *older*.",
            "hundreds of parts in an old month: a backfill goes on, or merges stand still.",
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


def _decoded() -> Json:
    return lines(
        "Transactions that Postgres decodes for the slot",
        About(
            "all that touch the outbox. *spilled* and *streamed* are none, but for very large ones.",
            "0 while apps write: nobody streams from the slot.",
            "runbooks/wal-growing.md",
        ),
        *_counters("transactions"),
        unit="ops",
        size=Size(12, 8),
    )


def _streamed() -> Json:
    return lines(
        "Bytes that Postgres decodes for the slot",
        About(
            "a little more than what the reader captures.",
            "far more: the publication has tables or operations that are not the outbox' inserts.",
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


def _asked() -> Json:
    return lines(
        "Queries that ClickHouse answers",
        About(
            "whatever its users ask; only where `system.query_log` exists.",
            "a jump explains slow inserts.",
            "runbooks/clickhouse-down.md",
        ),
        Query(newest("outhaul_clickhouse_queries")),
        unit="short",
        empty="no query_log",
        size=Size(12, 8),
    )


def _last() -> Json:
    return lines(
        "Since the last event was stored",
        About(
            "under a second while events come; a climb while none come.",
            "a climb while events come: nothing is stored.",
            "runbooks/nothing-stored.md",
        ),
        Query(f"time() - {newest('outhaul_clickhouse_last_stored_timestamp_seconds')}"),
        unit="s",
        size=Size(12, 8),
    )

"""Metrics of ClickHouse -> panels of its parts, bytes, merges, refused inserts, and the time of inserts and queries.

Pure. The counters of inserts are those of the whole server, from `system.events`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import GREEN, ORANGE, RED, YELLOW, About, Query, lines
from outhaul.deploy.grafana.promql import newest, of, quantile, ratio, server_per_second, total

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel

_INSERT = "outhaul_worker_insert_seconds"


def clickhouse() -> Group:
    """Return the group."""
    panels = (_parts(), _fullest(), _merges(), _bytes(), _compression(), _refused(), _inserts(), _size(), _queries())
    return Group("What does ClickHouse cost?", panels)


def _parts() -> Panel:
    return lines(
        "Active parts of the newest 24 months",
        About(
            "tens to a few hundred, up and down as merges run.",
            "a climb: merges do not keep up, or are stopped (`SYSTEM START MERGES`).",
            "runbooks/clickhouse-down.md",
        ),
        Query(total("outhaul_clickhouse_parts", partition="[0-9].*")),
        unit="short",
    )


def _fullest() -> Panel:
    fullest = newest("outhaul_clickhouse_parts")
    return lines(
        "Parts of the fullest month, as a share of the limit",
        About(
            "a few per cent of `parts_to_throw_insert`.",
            "ClickHouse delays inserts and then refuses them; workers repeat them and nothing is lost. "
            "The cause: events of many months at once, or stopped merges.",
            "runbooks/nothing-stored.md",
        ),
        Query(ratio(fullest, newest("outhaul_clickhouse_parts_limit"))),
        unit="percentunit",
        steps=((None, GREEN), (0.5, ORANGE), (0.9, RED)),
    )


def _merges() -> Panel:
    return lines(
        "Running merges",
        About(
            "a few, for seconds; merges of large parts for minutes.",
            "no merge while the parts grow: merges are stopped, or the disk is full.",
            "runbooks/clickhouse-down.md",
        ),
        Query(newest("outhaul_clickhouse_merges"), "merges {{source}}"),
        Query(newest("outhaul_clickhouse_merge_seconds"), "longest, s {{source}}"),
        unit="short",
    )


def _bytes() -> Panel:
    return lines(
        "Bytes on disk",
        About("grows with the events.", "faster than the events: see the compression ratio.", "operations.md"),
        Query(total("outhaul_clickhouse_bytes_on_disk")),
        unit="bytes",
    )


def _compression() -> Panel:
    packed, unpacked = total("outhaul_clickhouse_bytes_on_disk"), total("outhaul_clickhouse_uncompressed_bytes")
    return lines(
        "Compression ratio",
        About(
            "5 to 20 for JSON of one shape, after merges.",
            "near 1: contexts are encrypted or compressed already, or parts have few rows.",
            "performance.md",
        ),
        Query(ratio(unpacked, packed)),
        unit="short",
    )


def _refused() -> Panel:
    return lines(
        "Inserts that ClickHouse delays or refuses",
        About(
            "0.",
            "too many parts. This counts all inserts of the server; workers repeat those of outhaul.",
            "runbooks/nothing-stored.md",
        ),
        Query(server_per_second("outhaul_clickhouse_delayed_inserts_total"), "delayed {{source}}"),
        Query(server_per_second("outhaul_clickhouse_rejected_inserts_total"), "refused {{source}}"),
        unit="ops",
        steps=((None, GREEN), (0.01, YELLOW)),
    )


def _inserts() -> Panel:
    seconds, count = (server_per_second(f"outhaul_clickhouse_{name}_total") for name in ("insert_seconds", "inserts"))
    return lines(
        "How long does an insert take?",
        About(
            "tens of milliseconds; a second for a full batch.",
            "disk, merges or other queries of ClickHouse. *server*: mean of all clients; p50, p99: outhaul's inserts.",
            "performance.md",
        ),
        Query(quantile(0.5, _INSERT), "p50 {{source}}"),
        Query(quantile(0.99, _INSERT), "p99 {{source}}"),
        Query(ratio(seconds, count), "server {{source}}"),
        unit="s",
    )


def _size() -> Panel:
    rows, count = (server_per_second(f"outhaul_clickhouse_{name}_total") for name in ("inserted_events", "inserts"))
    return lines(
        "Events per insert",
        About(
            "one to a few hundred when idle, up to 131,072 with a backlog: the mean of all inserts on the server.",
            "few under load: raise `OUTHAUL_LINGER_S` for fewer and larger parts.",
            "performance.md",
        ),
        Query(ratio(rows, count)),
        unit="short",
    )


def _queries() -> Panel:
    return lines(
        "How long does a query take?",
        About(
            "a count over the last hour of events takes milliseconds. Quantiles of all queries appear only if "
            "`system.query_log` exists.",
            "ClickHouse is busy: look at its `system.processes`.",
            "runbooks/clickhouse-down.md",
        ),
        Query(newest("outhaul_clickhouse_probe_seconds"), "count {{source}}"),
        Query(f"max by (source, quantile) ({of('outhaul_clickhouse_query_seconds')})", "q{{quantile}} {{source}}"),
        unit="s",
    )

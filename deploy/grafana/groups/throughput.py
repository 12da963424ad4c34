"""Metrics of throughput -> panels of rates, and of the stages in which reader and workers spend their time.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import About, Query, Size, lines
from outhaul.deploy.grafana.promql import per_second

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel

_HALF = Size(12, 8)


def throughput() -> Group:
    """Return the group."""
    return Group("How much goes through, and where is the time going?", (_events(), _bytes(), _reader(), _worker()))


def _events() -> Panel:
    return lines(
        "Events captured and stored",
        About(
            "both lines are equal.",
            "captured above stored: more is in flight. Stored above captured: less is in flight.",
            "runbooks/nothing-stored.md",
        ),
        Query(per_second("outhaul_reader_events_captured_total"), "captured {{source}}"),
        Query(per_second("outhaul_reader_events_stored_total"), "stored {{source}}"),
        unit="eps",
        size=_HALF,
    )


def _bytes() -> Panel:
    return lines(
        "Bytes captured and stored",
        About(
            "stored (compressed) is a fraction of captured (as sent by Postgres).",
            "many bytes for few events: look for large `event_context`.",
            "performance.md",
        ),
        Query(per_second("outhaul_reader_bytes_captured_total"), "captured {{source}}"),
        Query(per_second("outhaul_reader_bytes_stored_total"), "stored {{source}}"),
        unit="Bps",
        size=_HALF,
    )


def _reader() -> Panel:
    return lines(
        "What is the reader busy with?",
        About(
            "mostly *wait*. *wait* and *read* are one thread, *decode* and *pack* a second, *dispatch* a "
            "third; each thread has 100 %.",
            "the thread near 100 % is the bottleneck; if it is *dispatch*, Redis is slow.",
            "performance.md",
        ),
        Query(per_second("outhaul_reader_stage_seconds_total", "stage"), "{{stage}} {{source}}"),
        unit="percentunit",
        stacked=True,
        size=_HALF,
    )


def _worker() -> Panel:
    return lines(
        "What are the workers busy with?",
        About(
            "mostly *insert*; the sum is well below 100 % for each process of the pool.",
            "near 100 %: start more workers. Much *fetch* or *report*: Redis is slow.",
            "performance.md",
        ),
        Query(per_second("outhaul_worker_stage_seconds_total", "stage"), "{{stage}} {{source}}"),
        unit="percentunit",
        stacked=True,
        size=_HALF,
    )

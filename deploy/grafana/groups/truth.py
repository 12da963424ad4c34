"""Is everything there? -> what was set aside, and what the audit found.

Pure.
"""

from __future__ import annotations

from deploy.grafana.groups.health import letters
from deploy.grafana.layout import Group
from deploy.grafana.panel import GREEN, RED, About, Json, Query, Size, lines
from deploy.grafana.promql import newest, times, total

_QUARTER = Size(6, 8)


def dead_letters() -> Group:
    """Return the group of events that were set aside."""
    return Group("Dead letters", (_by_reason(), _new()))


def audit() -> Group:
    """Return the group of comparisons."""
    return Group("Audit", (_found(), _compared(), _age(), _failures()))


def _by_reason() -> Json:
    return lines(
        "Dead letters by reason",
        About(
            "none.",
            "`outhaul dlq list` and `outhaul dlq show` say what is wrong with each; mend it, then `outhaul dlq retry`.",
            "runbooks/dead-letters.md",
        ),
        Query(total("outhaul_clickhouse_dead_letters", "reason"), "{{reason}} {{source}}"),
        Query(letters(), "all {{source}}"),
        unit="short",
        size=Size(12, 8),
    )


def _new() -> Json:
    return lines(
        "New dead letters",
        About(
            "none.",
            "an app writes what ClickHouse cannot hold; it is kept whole, and everything else goes on.",
            "runbooks/dead-letters.md",
        ),
        Query(times("outhaul_reader_events_dead_lettered_total", process="reader")),
        unit="short",
        bars=True,
        size=Size(12, 8),
    )


def _found() -> Json:
    found = ("missing", "extra", "differing")
    return lines(
        "What the audit found",
        About(
            "0. *extra* are events that somebody deleted from the outbox, *differing* those updated there "
            "after they were captured.",
            "*missing*: `outhaul verify --repair`.",
            "runbooks/missing-rows.md",
        ),
        *(Query(newest(f"outhaul_audit_{what}_events"), f"{what} {{{{source}}}}") for what in found),
        unit="short",
        steps=((None, GREEN), (1, RED)),
        size=_QUARTER,
    )


def _compared() -> Json:
    return lines(
        "Events compared",
        About(
            "as many as were written in the time that a pass looks at.",
            "0 though events come: the audit looks at the wrong table.",
            "operations.md",
        ),
        Query(newest("outhaul_audit_compared_events")),
        unit="short",
        size=_QUARTER,
    )


def _age() -> Json:
    return lines(
        "Time since the last audit",
        About(
            "a sawtooth of minutes.",
            "a climb: the exporter does not run, or the audit fails.",
            "operations.md",
        ),
        Query(f"time() - {newest('outhaul_audit_last_success_timestamp_seconds')}"),
        unit="s",
        size=_QUARTER,
    )


def _failures() -> Json:
    return lines(
        "Audits that failed",
        About(
            "none, but while a server is away.",
            "the exporter's log says why; until it passes, *missing* is as old as the last one that did.",
            "operations.md",
        ),
        Query(times("outhaul_audit_failures_total", process="exporter")),
        unit="short",
        bars=True,
        size=_QUARTER,
    )

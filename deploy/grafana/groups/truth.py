"""Is everything there? -> what was set aside, and what the audit found.

Pure.
"""

from __future__ import annotations

from deploy.grafana.groups.health import audit_age
from deploy.grafana.layout import Group
from deploy.grafana.panel import GREEN, RED, About, Json, Query, Size, lines
from deploy.grafana.promql import newest, times

_HALF = Size(12, 8)
_QUARTER = Size(6, 8)


def dead_letters() -> Group:
    """Return the group of events that were set aside."""
    return Group("Dead letters", (_letters(), _new()))


def audit() -> Group:
    """Return the group of comparisons."""
    return Group("Audit", (_found(), _compared(), _age(), _failures()))


def _letters() -> Json:
    return lines(
        "Dead letters that wait for you",
        About(
            "0: neither retried nor discarded yet.",
            "`outhaul dlq list` and `outhaul dlq show` say what is wrong with each; mend it, then `outhaul dlq retry`.",
            "runbooks/dead-letters.md",
        ),
        Query(newest("outhaul_clickhouse_dead_letters")),
        unit="short",
        size=_HALF,
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
        size=_HALF,
    )


def _found() -> Json:
    found = ("missing", "extra", "repeated")
    return lines(
        "What the audit found",
        About(
            "0; *extra* are events that somebody deleted from the outbox by hand.",
            "*missing*: `outhaul verify --repair`. *repeated*: the page of duplicates.",
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
            "those of the last pass, up to 393,216: the newest, and older ones in turn.",
            "0 though events come: the exporter looks at another outbox, `OUTHAUL_TABLE`.",
            "metrics.md",
        ),
        Query(newest("outhaul_audit_compared_events")),
        unit="short",
        size=_QUARTER,
    )


def _age() -> Json:
    return lines(
        "Time since the last audit",
        About(
            "a sawtooth of a minute or two.",
            "a climb: the slot stands still, so that nothing can be said, or a server does not answer.",
            "metrics.md",
        ),
        Query(audit_age()),
        unit="s",
        size=_QUARTER,
    )


def _failures() -> Json:
    return lines(
        "Audits that failed",
        About(
            "none, but while the slot stands still or a server is away.",
            "the exporter's log says why; until one passes, nothing is known of what is missing.",
            "metrics.md",
        ),
        Query(times("outhaul_exporter_failures_total", process="exporter", server="audit")),
        unit="short",
        bars=True,
        size=_QUARTER,
    )

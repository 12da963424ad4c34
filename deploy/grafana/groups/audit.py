"""Metrics of dead letters and of the audit -> panels of the events set aside, and of the differences found.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.groups.health import audit_age
from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import GREEN, RED, About, Query, Size, lines
from outhaul.deploy.grafana.promql import newest, times

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel

_HALF = Size(12, 8)
_QUARTER = Size(6, 8)


def dead_letters() -> Group:
    """Return the group of dead letters."""
    return Group("Dead letters", (_letters(), _new()))


def audit() -> Group:
    """Return the group of the audit."""
    return Group("Audit", (_found(), _compared(), _age(), _failures(), _views_differ(), _views_not_exact()))


def _letters() -> Panel:
    return lines(
        "Open dead letters",
        About(
            "0. Counts dead letters not yet retried or discarded.",
            "`outhaul dlq list` and `outhaul dlq show` give the reason of each; fix it, then type `outhaul dlq retry`.",
            "runbooks/dead-letters.md",
        ),
        Query(newest("outhaul_clickhouse_dead_letters")),
        unit="short",
        size=_HALF,
    )


def _new() -> Panel:
    return lines(
        "New dead letters",
        About(
            "none.",
            "an app writes events that ClickHouse refuses; they are kept whole, and all other events are stored.",
            "runbooks/dead-letters.md",
        ),
        Query(times("outhaul_reader_events_dead_lettered_total", process="reader")),
        unit="short",
        bars=True,
        size=_HALF,
    )


def _found() -> Panel:
    found = ("missing", "extra", "repeated")
    return lines(
        "Differences found by the audit",
        About(
            "0; *extra* events were deleted from the outbox by hand.",
            "*missing*: type `outhaul verify --repair`. *repeated*: read docs/runbooks/duplicates.md.",
            "runbooks/missing-rows.md",
        ),
        *(Query(newest(f"outhaul_audit_{what}_events"), f"{what} {{{{source}}}}") for what in found),
        unit="short",
        steps=((None, GREEN), (1, RED)),
        size=_QUARTER,
    )


def _views_differ() -> Panel:
    return lines(
        "Views that differ from event_log",
        About(
            "0, and shown only with `outhaul exporter --views-every`. Rows or groups by materialized view.",
            "`outhaul verify --views` compares now; read docs/runbooks/view-differs.md.",
            "runbooks/view-differs.md",
        ),
        *(Query(newest(f"outhaul_view_{what}", "view"), f"{what} {{{{view}}}}") for what in ("missing", "extra")),
        unit="short",
        steps=((None, GREEN), (1, RED)),
        size=_HALF,
    )


def _views_not_exact() -> Panel:
    return lines(
        "Views that are not exact",
        About(
            "0. Counts materialized views that may miss or repeat an event.",
            "`outhaul doctor` names each, and the statement to type. The reader refuses them at its next start.",
            "runbooks/view-differs.md",
        ),
        Query(newest("outhaul_reader_views_not_exact")),
        unit="short",
        steps=((None, GREEN), (1, RED)),
        size=_HALF,
    )


def _compared() -> Panel:
    return lines(
        "Events compared",
        About(
            "up to 393,216 in the last pass: the newest events, and older ones in turn.",
            "0 while events come: the exporter compares another outbox; check its `OUTHAUL_TABLE`.",
            "reference/metrics.md",
        ),
        Query(newest("outhaul_audit_compared_events")),
        unit="short",
        size=_QUARTER,
    )


def _age() -> Panel:
    return lines(
        "Time since the last audit",
        About(
            "a sawtooth of a minute or two.",
            "a climb: the slot does not move, so the audit has to wait, or a server does not answer.",
            "reference/metrics.md",
        ),
        Query(audit_age()),
        unit="s",
        size=_QUARTER,
    )


def _failures() -> Panel:
    return lines(
        "Failed audits",
        About(
            "none, except while the slot does not move or a server does not answer.",
            "the exporter's log says why. Until an audit succeeds, missing events are not detected.",
            "reference/metrics.md",
        ),
        Query(times("outhaul_exporter_failures_total", process="exporter", server="audit")),
        unit="short",
        bars=True,
        size=_QUARTER,
    )

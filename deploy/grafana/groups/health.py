"""Metrics of all parts -> one value for each of the first questions of an operator, and the firing alerts.

Pure. The first group of the overview: visible without scrolling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.dashboard import FIRING
from outhaul.deploy.grafana.groups.states import PHASE_WORDS, STATUS_WORDS, phase, status
from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import GREEN, NONE_IS_FINE, ORANGE, RED, UP, YELLOW, About, Query, Size, stat, table
from outhaul.deploy.grafana.promql import newest, quantile

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel

_NO_EXPORTER = "no exporter"
_HOUR_S = 3600
_GIB = 1024**3


def health() -> Group:
    """Return the group."""
    return Group("Is it healthy?", (*_events(), _alerts(), *_parts()))


def _events() -> tuple[Panel, ...]:
    return (
        stat(
            "Missing events",
            About(
                "0: every event that the last audit compared is in ClickHouse. See also *Last audit*.",
                "type `outhaul verify --repair`, which stores the missing events; the page lists the causes.",
                "runbooks/missing-rows.md",
            ),
            Query(newest("outhaul_audit_missing_events")),
            unit="short",
            steps=NONE_IS_FINE,
            empty="not audited",
        ),
        stat(
            "Last audit",
            About(
                "a minute or two ago (`outhaul exporter --audit-every`).",
                "the exporter does not run, or cannot compare: its log says why. *Missing events* is as old "
                "as the last audit.",
                "reference/metrics.md",
            ),
            Query(audit_age()),
            unit="dtdurations",
            steps=((None, GREEN), (_HOUR_S, YELLOW), (24 * _HOUR_S, RED)),
            empty="never",
        ),
        stat(
            "How far behind?",
            About(
                "under a second: the age of the oldest commit that is not stored.",
                "no event is lost while this grows. See *Reader*, *Workers* and the servers; then `outhaul status`.",
                "runbooks/nothing-stored.md",
            ),
            Query(newest("outhaul_reader_lag_seconds")),
            unit="s",
            steps=((None, GREEN), (10, YELLOW), (60, RED)),
            empty="no reader",
        ),
        stat(
            "Commit to stored (p99)",
            About(
                "under a second; no value without events.",
                "a backlog is being stored, or ClickHouse is slow: see *where is the time going?*",
                "performance.md",
            ),
            Query(quantile(0.99, "outhaul_reader_commit_to_stored_seconds")),
            unit="s",
            steps=((None, GREEN), (5, YELLOW), (60, RED)),
            empty="no events",
        ),
        stat(
            "Slot",
            About(
                "*reserved*.",
                "*extended* and *unreserved*: Postgres will soon invalidate the slot; let the reader catch up, or "
                "raise `max_slot_wal_keep_size`. *lost* or *missing*: `outhaul slot reset --recreate` copies the "
                "skipped events.",
                "runbooks/slot-lost.md",
            ),
            Query(status()),
            unit="none",
            texts=STATUS_WORDS,
            empty=_NO_EXPORTER,
        ),
        stat(
            "WAL kept on the primary",
            About(
                "up to a few hundred megabytes, since Postgres removes WAL by checkpoints.",
                "the slot does not move, and the primary's disk fills. Fix what blocks the slot, or drop it.",
                "runbooks/wal-growing.md",
            ),
            Query(newest("outhaul_slot_retained_bytes")),
            unit="bytes",
            steps=((None, GREEN), (_GIB, YELLOW), (10 * _GIB, RED)),
            empty=_NO_EXPORTER,
        ),
    )


def _alerts() -> Panel:
    return table(
        "Which alerts fire?",
        About("no alert.", "read the page that the alert's `runbook_url` names.", "runbooks/README.md"),
        Query(FIRING),
        unit="none",
        columns={"alertname": "alert", "severity": "severity", "source": "pipeline"},
        sort="severity",
        descending=False,
        empty="no alert fires",
        size=Size(6, 6),
    )


def _parts() -> tuple[Panel, ...]:
    return (
        stat(
            "Reader",
            About(
                "*streaming*, also while no event is written.",
                "*waiting*: it repeats an attempt at Redis or ClickHouse; *paused*: `outhaul pause` was typed; "
                "*standing by* alone: another session has the slot. *no reader*: start one; the last line of the "
                "log says why the reader ended.",
                "runbooks/reader-does-not-start.md",
            ),
            Query(phase()),
            unit="none",
            texts=PHASE_WORDS,
            empty="no reader",
        ),
        stat(
            "Workers",
            About(
                "as many as you run. Counts workers that answer Celery's ping.",
                "0: nothing is stored, start `outhaul worker`. Fewer than you run: read the logs of the others.",
                "runbooks/nothing-stored.md",
            ),
            Query(newest("outhaul_celery_workers")),
            unit="short",
            steps=UP,
            empty=_NO_EXPORTER,
        ),
        _server(
            "Postgres", "outhaul_postgres_up", "start it, or correct `OUTHAUL_POSTGRES_DSN`.", "runbooks/README.md"
        ),
        _server(
            "Redis",
            "outhaul_redis_up",
            "start it; the reader sends its batches again, and nothing is lost.",
            "runbooks/redis-lost.md",
        ),
        _server(
            "ClickHouse",
            "outhaul_clickhouse_up",
            "start it; until then the slot keeps WAL on the primary.",
            "runbooks/clickhouse-down.md",
        ),
        stat(
            "Dead letters",
            About(
                "0.",
                "events that ClickHouse refused, kept whole: `outhaul dlq list` says why, "
                "`outhaul dlq retry` sends them again.",
                "runbooks/dead-letters.md",
            ),
            Query(newest("outhaul_clickhouse_dead_letters")),
            unit="short",
            steps=((None, GREEN), (1, YELLOW), (1000, ORANGE)),
            empty=_NO_EXPORTER,
        ),
    )


def audit_age() -> str:
    """Return the seconds since the last complete audit."""
    return f"time() - {newest('outhaul_exporter_last_success_timestamp_seconds', server='audit')}"


def _server(name: str, metric: str, otherwise: str, page: str) -> Panel:
    return stat(
        name,
        About("*up*: it answers the exporter.", otherwise, page),
        Query(newest(metric)),
        unit="none",
        steps=UP,
        texts={0: ("down", RED), 1: ("up", GREEN)},
        empty=_NO_EXPORTER,
    )

"""Metrics of the reader -> panels of phases, stages, repeated work, and its slot.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.groups.states import PHASE_WORDS, phase
from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import About, Query, Size, lines, timeline
from outhaul.deploy.grafana.promql import newest, per_second, quantile, times

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel

_HALF = Size(12, 8)
_QUARTER = Size(6, 8)


def reader() -> Group:
    """Return the group of a reader's normal work."""
    return Group("Reader", (_phases(), _paused(), _cost(), _capture(), _silence(), _epoch(), _recovery()))


def repeats() -> Group:
    """Return the group of rare events."""
    panels = (_redispatches(), _retries(), _ends(), _left_out(), _sessions(), _heals(), _healed(), _slots())
    return Group("Repeated work of the reader", panels)


def _phases() -> Panel:
    return timeline(
        "Phase of each reader",
        About(
            "one reader *streaming*, the others *standing by*.",
            "repeatedly *reconnecting*: Postgres or the network. *waiting*: Redis or ClickHouse.",
            "runbooks/reader-does-not-start.md",
        ),
        Query(phase("instance"), "{{instance}} {{source}}"),
        texts=PHASE_WORDS,
        size=Size(18, 8),
    )


def _paused() -> Panel:
    return lines(
        "Paused",
        About(
            "0.",
            "`outhaul pause` was typed: the slot keeps WAL until `outhaul resume` or the end of `--for`.",
            "operations.md",
        ),
        Query(newest("outhaul_reader_paused")),
        unit="bool_yes_no",
        most=1,
        size=_QUARTER,
    )


def _cost() -> Panel:
    work = per_second("outhaul_reader_stage_seconds_total", "stage", stage="read|decode|pack|dispatch")
    captured = per_second("outhaul_reader_events_captured_total")
    return lines(
        "Time per event in the reader",
        About(
            "a few microseconds with a backlog, up to milliseconds for single events.",
            "much *decode*: text instead of binary tuples, or very wide rows. Much *dispatch*: Redis is slow.",
            "performance.md",
        ),
        Query(f"{work} / on (source) group_left () ({captured} > 0)", "{{stage}} {{source}}"),
        unit="s",
        stacked=True,
    )


def _capture() -> Panel:
    metric = "outhaul_reader_commit_to_capture_seconds"
    return lines(
        "From commit to capture",
        About(
            "milliseconds; 0.2 s more with `synchronous_commit = off`.",
            "the reader lags: a backlog, or one long transaction, which is sent at its commit.",
            "performance.md",
        ),
        Query(quantile(0.5, metric), "p50 {{source}}"),
        Query(quantile(0.99, metric), "p99 {{source}}"),
        unit="s",
    )


def _silence() -> Panel:
    return lines(
        "Time since the last bytes from and to Postgres",
        About(
            "*from* and *to* well below `wal_sender_timeout`.",
            "*from* climbs: the network. At `OUTHAUL_RECEIVE_TIMEOUT_S` the reader begins a new session.",
            "guarantees.md",
        ),
        Query(newest("outhaul_reader_silence_seconds"), "from {{source}}"),
        Query(newest("outhaul_reader_feedback_age_seconds"), "to {{source}}"),
        unit="s",
    )


def _epoch() -> Panel:
    return lines(
        "Epoch",
        About(
            "flat. Each step is a takeover by another reader, or a new session after a failure.",
            "many steps: two pipelines of one source fence each other, or sessions break.",
            "guarantees.md",
        ),
        Query(newest("outhaul_reader_epoch")),
        unit="none",
        size=_HALF,
    )


def _recovery() -> Panel:
    return lines(
        "Duration of the last recovery",
        About(
            "under a second; up to `OUTHAUL_INSERT_TIMEOUT_S` + 10 s if the reader must wait for older inserts.",
            "ClickHouse is slow to list the stored positions: see *How long does a query take?*",
            "guarantees.md",
        ),
        Query(newest("outhaul_reader_recovery_seconds")),
        unit="s",
        size=_HALF,
    )


def _rare(title: str, about: About, metric: str, *by: str) -> Panel:
    legend = " ".join(f"{{{{{label}}}}}" for label in (*by, "source"))
    query = Query(times(metric, *by, process="reader"), legend)
    return lines(title, about, query, unit="short", bars=True, size=_QUARTER)


def _redispatches() -> Panel:
    return _rare(
        "Batches sent again",
        About(
            "none, except after a worker or Redis was lost.",
            "harmless: a batch is stored once even if it is sent often. If constant: workers die, or are too slow.",
            "runbooks/nothing-stored.md",
        ),
        "outhaul_reader_redispatches_total",
        "reason",
    )


def _retries() -> Panel:
    return _rare(
        "Retries",
        About(
            "none.",
            "*dispatch* or *reports*: Redis does not answer; *recovery*: ClickHouse does not answer.",
            "runbooks/redis-lost.md",
        ),
        "outhaul_reader_retries_total",
        "where",
    )


def _ends() -> Panel:
    return _rare(
        "Sessions that ended",
        About(
            "none, except at restarts of Postgres and of the reader.",
            "the legend shows the class of the error; `session_ended` in the reader's log shows the error.",
            "runbooks/reader-does-not-start.md",
        ),
        "outhaul_reader_session_ends_total",
        "reason",
    )


def _left_out() -> Panel:
    return _rare(
        "Events left out",
        About(
            "none, except some after each recovery: events streamed again that ClickHouse already held.",
            "nothing to do: outhaul leaves them out so that nothing is stored twice.",
            "guarantees.md",
        ),
        "outhaul_reader_events_left_out_total",
    )


def _sessions() -> Panel:
    return _rare(
        "Sessions begun",
        About(
            "none, except after a session has ended.", "see *Sessions that ended*.", "runbooks/reader-does-not-start.md"
        ),
        "outhaul_reader_sessions_total",
    )


def _heals() -> Panel:
    return _rare(
        "Heals",
        About(
            "none. A heal copies the events that a slot skipped.",
            "the slot was lost or created again; the reader's log says why. Check with `outhaul verify`.",
            "runbooks/slot-lost.md",
        ),
        "outhaul_reader_heals_total",
        "outcome",
    )


def _healed() -> Panel:
    return _rare(
        "Events healed",
        About(
            "none.",
            "the slot skipped these events, and the reader copied them from the outbox.",
            "runbooks/slot-lost.md",
        ),
        "outhaul_reader_healed_events_total",
    )


def _slots() -> Panel:
    return _rare(
        "Slots dropped or created again",
        About(
            "none.",
            "the reader did it because of `OUTHAUL_HEAL=auto`. If often: the WAL limit is too small.",
            "runbooks/slot-lost.md",
        ),
        "outhaul_reader_slot_changes_total",
        "reason",
    )

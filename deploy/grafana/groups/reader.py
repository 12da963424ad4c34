"""What is the reader doing? -> phases, stages, what it had to repeat, and how it keeps its slot.

Pure.
"""

from __future__ import annotations

from deploy.grafana.groups.states import PHASE_WORDS, phase
from deploy.grafana.layout import Group
from deploy.grafana.panel import About, Json, Query, Size, lines, timeline
from deploy.grafana.promql import newest, per_second, quantile, times

_HALF = Size(12, 8)
_QUARTER = Size(6, 8)


def reader() -> Group:
    """Return the group of what a reader does all the time."""
    return Group("Reader", (_phases(), _paused(), _cost(), _capture(), _silence(), _epoch(), _recovery()))


def repeats() -> Group:
    """Return the group of what ought to be rare."""
    panels = (_redispatches(), _retries(), _ends(), _left_out(), _sessions(), _heals(), _healed(), _slots())
    return Group("What the reader had to repeat", panels)


def _phases() -> Json:
    return timeline(
        "Phase of each reader",
        About(
            "one *streaming*, any others *standing by*.",
            "*reconnecting* again and again: Postgres or the network. *waiting*: Redis or ClickHouse.",
            "runbooks/reader-does-not-start.md",
        ),
        Query(phase("instance"), "{{instance}} {{source}}"),
        texts=PHASE_WORDS,
        size=Size(18, 8),
    )


def _paused() -> Json:
    return lines(
        "Paused",
        About(
            "0.",
            "somebody typed `outhaul pause`: WAL is kept until `outhaul resume` or the end of `--for`.",
            "operations.md",
        ),
        Query(newest("outhaul_reader_paused")),
        unit="bool_yes_no",
        most=1,
        size=_QUARTER,
    )


def _cost() -> Json:
    work = per_second("outhaul_reader_stage_seconds_total", "stage", stage="read|decode|pack|dispatch")
    captured = per_second("outhaul_reader_events_captured_total")
    return lines(
        "What does an event cost the reader?",
        About(
            "a few microseconds under a backlog, up to milliseconds for events that come alone.",
            "*decode* large: text instead of binary tuples, or very wide rows. *dispatch* large: Redis.",
            "performance.md",
        ),
        Query(f"{work} / on (source) group_left () ({captured} > 0)", "{{stage}} {{source}}"),
        unit="s",
        stacked=True,
    )


def _capture() -> Json:
    metric = "outhaul_reader_commit_to_capture_seconds"
    return lines(
        "From commit to capture",
        About(
            "milliseconds, and 0.2 s more where `synchronous_commit` is off.",
            "the reader is behind in the log: a backlog, or a transaction that took long and came at once.",
            "performance.md",
        ),
        Query(quantile(0.5, metric), "p50 {{source}}"),
        Query(quantile(0.99, metric), "p99 {{source}}"),
        unit="s",
    )


def _silence() -> Json:
    return lines(
        "Since the last word from, and to, Postgres",
        About(
            "*from* and *to* well below `wal_sender_timeout`.",
            "*from* climbs: the network; at `OUTHAUL_RECEIVE_TIMEOUT_S` the reader begins a new session.",
            "guarantees.md",
        ),
        Query(newest("outhaul_reader_silence_seconds"), "from {{source}}"),
        Query(newest("outhaul_reader_feedback_age_seconds"), "to {{source}}"),
        unit="s",
    )


def _epoch() -> Json:
    return lines(
        "Epoch",
        About(
            "flat: each step is a reader that took over, or began again after a failure.",
            "a stair: two pipelines of one source fence each other, or sessions do not last.",
            "guarantees.md",
        ),
        Query(newest("outhaul_reader_epoch")),
        unit="none",
        size=_HALF,
    )


def _recovery() -> Json:
    return lines(
        "How long did the last recovery take?",
        About(
            "under a second; up to `OUTHAUL_INSERT_TIMEOUT_S` and 10 s where older inserts have to be waited for.",
            "ClickHouse is slow to say what it holds: see how long a query takes.",
            "guarantees.md",
        ),
        Query(newest("outhaul_reader_recovery_seconds")),
        unit="s",
        size=_HALF,
    )


def _rare(title: str, about: About, metric: str, *by: str) -> Json:
    legend = " ".join(f"{{{{{label}}}}}" for label in (*by, "source"))
    query = Query(times(metric, *by, process="reader"), legend)
    return lines(title, about, query, unit="short", bars=True, size=_QUARTER)


def _redispatches() -> Json:
    return _rare(
        "Batches sent again",
        About(
            "none, but where a worker or Redis was lost.",
            "harmless: a batch is stored once however often it is sent. Steady: workers die, or are too slow.",
            "runbooks/nothing-stored.md",
        ),
        "outhaul_reader_redispatches_total",
        "reason",
    )


def _retries() -> Json:
    return _rare(
        "Retries",
        About(
            "none.",
            "where it says *dispatch* or *reports* it is Redis, *recovery* is ClickHouse.",
            "runbooks/redis-lost.md",
        ),
        "outhaul_reader_retries_total",
        "where",
    )


def _ends() -> Json:
    return _rare(
        "Sessions that ended",
        About(
            "none, but with restarts of Postgres and of the reader.",
            "the reason is the class of the error; the reader's log has the whole of it as `session_ended`.",
            "runbooks/reader-does-not-start.md",
        ),
        "outhaul_reader_session_ends_total",
        "reason",
    )


def _left_out() -> Json:
    return _rare(
        "Events left out",
        About(
            "none, and some after each recovery: ClickHouse held them when they were streamed again.",
            "nothing to do: this is how nothing is stored twice.",
            "guarantees.md",
        ),
        "outhaul_reader_events_left_out_total",
    )


def _sessions() -> Json:
    return _rare(
        "Sessions begun",
        About(
            "none, but after a session has ended.", "see *Sessions that ended*.", "runbooks/reader-does-not-start.md"
        ),
        "outhaul_reader_sessions_total",
    )


def _heals() -> Json:
    return _rare(
        "Heals",
        About(
            "none: copies of what a slot skipped.",
            "the slot was lost or made anew; the reader's log says why, `outhaul verify` that nothing is missing.",
            "runbooks/slot-lost.md",
        ),
        "outhaul_reader_heals_total",
        "outcome",
    )


def _healed() -> Json:
    return _rare(
        "Events healed",
        About(
            "none.",
            "so many events were copied from the outbox, since the slot had skipped them.",
            "runbooks/slot-lost.md",
        ),
        "outhaul_reader_healed_events_total",
    )


def _slots() -> Json:
    return _rare(
        "Slots given up or made anew",
        About(
            "none.",
            "with `OUTHAUL_HEAL=auto` the reader did it by itself; often: the limit of WAL is too small.",
            "runbooks/slot-lost.md",
        ),
        "outhaul_reader_slot_changes_total",
        "reason",
    )

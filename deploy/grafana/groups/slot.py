"""Metrics of the slot -> panels of the WAL that it keeps, the time until its limit, and the cost of decoding.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.deploy.grafana.layout import Group
from outhaul.deploy.grafana.panel import GREEN, ORANGE, RED, YELLOW, About, Query, Size, lines, stat
from outhaul.deploy.grafana.promql import newest, of, server_per_second

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Panel

_HOUR_S = 3600
_DAY_S = 24 * _HOUR_S
_NARROW = Size(4, 4)


def primary() -> Group:
    """Return the group."""
    return Group("Is the primary safe?", (_kept(), _left(), _limit(), _idle(), _held(), _growth(), _spill(), _outbox()))


def _kept() -> Panel:
    return lines(
        "WAL kept by the slot",
        About(
            "a sawtooth of up to a few hundred megabytes, well below the limit (`max_slot_wal_keep_size`) if "
            "it is set.",
            "a climb. At the limit Postgres invalidates the slot; without a limit the disk fills.",
            "runbooks/wal-growing.md",
        ),
        Query(newest("outhaul_slot_retained_bytes"), "kept {{source}}"),
        Query(newest("outhaul_slot_wal_limit_bytes"), "limit {{source}}"),
        unit="bytes",
        size=Size(8, 8),
    )


def growth() -> str:
    """Return the growth of the WAL that the slot keeps over the last 15 minutes, in bytes per second."""
    return f"max by (source) (deriv({of('outhaul_slot_retained_bytes')}[15m]))"


def time_left() -> str:
    """Return the seconds until the slot keeps more than its limit at this growth; at most a month."""
    return f"clamp_max({newest('outhaul_slot_safe_wal_bytes')} / clamp_min({growth()}, 1), {30 * _DAY_S})"


def _left() -> Panel:
    return stat(
        "Time until the slot is lost",
        About(
            "weeks (4.3 is the maximum shown), or no limit.",
            "at this growth Postgres then invalidates the slot. Fix what blocks it, or raise `max_slot_wal_keep_size`.",
            "runbooks/wal-growing.md",
        ),
        Query(time_left()),
        unit="dtdurations",
        steps=((None, RED), (4 * _HOUR_S, ORANGE), (_DAY_S, YELLOW), (7 * _DAY_S, GREEN)),
        empty="no limit",
        size=_NARROW,
    )


def _limit() -> Panel:
    return stat(
        "WAL until the slot is lost",
        About(
            "most of `max_slot_wal_keep_size`; without that setting the disk is the limit.",
            "0 or below: the next checkpoint invalidates the slot.",
            "runbooks/slot-lost.md",
        ),
        Query(newest("outhaul_slot_safe_wal_bytes")),
        unit="bytes",
        steps=((None, RED), (1, ORANGE), (1024**3, GREEN)),
        empty="no limit",
        size=_NARROW,
    )


def _idle() -> Panel:
    return lines(
        "Time without a session on the slot",
        About(
            "0.",
            "no reader has the slot: start one. A climb after a failover: the server has another timeline.",
            "runbooks/reader-does-not-start.md",
        ),
        Query(newest("outhaul_slot_inactive_seconds")),
        unit="s",
        steps=((None, GREEN), (60, RED)),
        size=Size(8, 8),
    )


def _held() -> Panel:
    return stat(
        "Slot active",
        About(
            "*yes*: a session has the slot.",
            "*no*: Postgres keeps all WAL since the slot's position until a reader starts.",
            "runbooks/slot-gone.md",
        ),
        Query(newest("outhaul_slot_active")),
        unit="none",
        steps=((None, RED), (1, GREEN)),
        texts={0: ("no", RED), 1: ("yes", GREEN)},
        empty="no exporter",
        size=_NARROW,
    )


def _growth() -> Panel:
    return stat(
        "Growth of the WAL kept",
        About(
            "about 0 over 15 minutes, up or down.",
            "as fast as the primary writes WAL: the slot does not move.",
            "runbooks/wal-growing.md",
        ),
        Query(growth()),
        unit="Bps",
        steps=((None, GREEN), (100_000, YELLOW), (1_000_000, ORANGE)),
        empty="no exporter",
        size=_NARROW,
    )


def _spill() -> Panel:
    return lines(
        "Decoding that spills to the primary's disk",
        About(
            "0, except while a very large transaction is decoded.",
            "constant: raise `logical_decoding_work_mem`, or make transactions smaller.",
            "operations.md",
        ),
        Query(server_per_second("outhaul_slot_spilled_bytes_total"), "spilled {{source}}"),
        Query(server_per_second("outhaul_slot_bytes_total"), "decoded {{source}}"),
        unit="Bps",
    )


def _outbox() -> Panel:
    return lines(
        "Size of the outbox",
        About(
            "flat, if you prune it.",
            "`outhaul prune` deletes rows that ClickHouse holds; set `OUTHAUL_PRUNE_OLDER_THAN`.",
            "housekeeping.md",
        ),
        Query(newest("outhaul_outbox_bytes")),
        unit="bytes",
    )

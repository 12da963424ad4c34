"""Two samples of a slot -> how much WAL it keeps, how fast that grows, and messages about problems.

Pure, except for `fetch_slot`, which is an edge: one query. A slot keeps WAL on its server until its reader confirms it.
Without `max_slot_wal_keep_size`, the kept WAL may fill the disk; with it, Postgres invalidates the slot, and the stream
loses events.

Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.postgres.connect import END_OF_LOG
from outhaul.cdc_reader.postgres.slot_view import cure_of
from outhaul.sink.quantities import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.position import Lsn

# A problem is reported if less than this share of the limit is left, or if the limit is reached within these seconds.
_LOW_SHARE = 0.2
_SOON_S = 3600.0
# Without a limit, the disk is the limit. Its size is not known here, so a problem is reported from this many bytes on.
_MUCH_BYTES = 10 << 30
# Seconds between samples. In the first, short interval, growth may be one batch in flight; so if it shows a problem, a
# longer interval follows.
_SHORT_S, _LONG_S = 1.0, 4.0

_LIMIT_UNIT_BYTES = 1 << 20

_VERSION_16, _VERSION_17 = 160000, 170000

_SAMPLE: LiteralString = """
    SELECT active, active_pid, plugin, database, confirmed_flush_lsn::text AS confirmed_lsn, wal_status, safe_wal_size,
           pg_wal_lsn_diff(received.lsn, restart_lsn)::bigint AS retained_bytes,
           pg_wal_lsn_diff(coalesce(%(end)s::pg_lsn, here.lsn), confirmed_flush_lsn)::bigint AS behind_bytes,
           CASE WHEN here.is_standby THEN pg_wal_lsn_diff(%(end)s::pg_lsn, here.lsn) END::bigint AS replay_behind_bytes,
           CASE WHEN here.is_standby THEN EXISTS (SELECT FROM pg_stat_wal_receiver) AND NOT pg_is_wal_replay_paused()
           END AS is_following,
           (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS limit_mb,
           extract(epoch FROM clock_timestamp())::float8 AS looked_at,
           (SELECT extract(epoch FROM reply_time - clock_timestamp()) FROM pg_stat_replication
            WHERE pid = active_pid)::float8 AS reply_ahead_s,
           (SELECT extract(epoch FROM clock_timestamp() - backend_start) FROM pg_stat_replication
            WHERE pid = active_pid)::float8 AS session_s,
           {of_version}
    FROM pg_replication_slots,
         LATERAL (SELECT pg_is_in_recovery() AS is_standby, {end_of_log} AS lsn) AS here,
         LATERAL (SELECT greatest(here.lsn, CASE WHEN is_standby THEN pg_last_wal_receive_lsn() END) AS lsn) AS received
    WHERE slot_name = %(slot)s"""
_SINCE_17: LiteralString = """
    invalidation_reason, inactive_since::text AS inactive_since,
    CASE WHEN active THEN 0 ELSE extract(epoch FROM now() - inactive_since) END::float8 AS inactive_s"""
_OF_16: LiteralString = """
    CASE WHEN conflicting THEN 'conflict' END AS invalidation_reason, NULL AS inactive_since,
    CASE WHEN active THEN 0 END::float8 AS inactive_s"""
_BEFORE_16: LiteralString = """
    NULL AS invalidation_reason, NULL AS inactive_since, CASE WHEN active THEN 0 END::float8 AS inactive_s"""


@dataclass(frozen=True, slots=True)
class Slot:
    """One sample of a slot; sizes in bytes; names as in Postgres, if it has one.

    `retained_bytes` and `behind_bytes` count from restart_lsn and from the confirmed position to the end of the WAL.
    `max_slot_wal_keep_size` and `safe_wal_size` are None without a limit. `looked_at` is the server's clock in seconds.
    `inactive_s` is the time since a session streamed from it; Postgres before 17 does not have it.
    On a standby, `retained_bytes` counts to the end of the received WAL, and `behind_bytes` to the end of the primary's
    WAL, if that is known. `replay_behind_bytes` counts from the replayed position to that end, and `is_following` is
    whether the standby receives and replays. Both are None on a primary.
    `reply_ahead_s` is how far the time of the reader's last reply, by the reader's clock, is ahead of Postgres' clock;
    `session_s` is the age of its session. Both are None without a session, or if this role may not see it.
    `growth_bytes_s` is None with one sample; `time_to_trouble_s` also if there is no growth or no limit.
    """

    active: bool
    active_pid: int | None
    plugin: str
    database: str
    confirmed_lsn: str | None
    wal_status: str | None
    safe_wal_size: int | None
    retained_bytes: int | None
    behind_bytes: int | None
    max_slot_wal_keep_size: int | None
    invalidation_reason: str | None
    inactive_since: str | None
    looked_at: float
    inactive_s: float | None = None
    reply_ahead_s: float | None = None
    session_s: float | None = None
    growth_bytes_s: float | None = None
    time_to_trouble_s: float | None = None
    replay_behind_bytes: int | None = None
    is_following: bool | None = None


def fetch_slot(conn: Connection, name: str, end: Lsn | None = None) -> Slot | None:
    """Return a sample of a slot; None if it does not exist.

    Args:
        conn: connection to the server that has it.
        name: name of the slot.
        end: end of the primary's WAL, if that is another server.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    of_version = _SINCE_17 if conn.version >= _VERSION_17 else _OF_16 if conn.version >= _VERSION_16 else _BEFORE_16
    names = {"slot": name, "end": None if end is None else str(end)}
    row = conn.fetch_one(_SAMPLE.format(of_version=of_version, end_of_log=END_OF_LOG), names)
    if row is None:
        return None
    limit_mb = row.pop("limit_mb")
    return Slot(**row, max_slot_wal_keep_size=None if limit_mb < 0 else limit_mb * _LIMIT_UNIT_BYTES)


def watch(first: Slot, again: Callable[[], Slot | None], wait: Callable[[float], None]) -> Slot:
    """Take a second sample, and a third one if a limit is near; return the last sample with its growth.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    found = first
    for seconds in (_SHORT_S, _LONG_S):
        wait(seconds)
        found = compare(first, again() or found)
        if found.time_to_trouble_s is None or found.time_to_trouble_s >= _SOON_S:
            break
    return found


def compare(first: Slot, last: Slot) -> Slot:
    """Return the last sample with the growth since the first.

    Kept WAL that is confirmed is released when the server next moves restart_lsn. So the growth is the smaller one of
    `retained_bytes` and `behind_bytes`.
    """
    seconds = last.looked_at - first.looked_at
    sizes = (first.retained_bytes, last.retained_bytes, first.behind_bytes, last.behind_bytes)
    if seconds <= 0 or None in sizes:
        return last
    kept, kept_now, behind, behind_now = (size or 0 for size in sizes)
    growth = min(kept_now - kept, behind_now - behind) / seconds
    is_limited = last.safe_wal_size is not None and growth > 0
    left_s = max(0, last.safe_wal_size or 0) / growth if is_limited else None
    return replace(last, growth_bytes_s=growth, time_to_trouble_s=left_s)


def judge(slot: Slot, name: str) -> list[str]:
    """Return a message for each problem of the slot."""
    messages = (_of_status(slot, name), _of_limit(slot, name), _of_growth(slot, name), _of_replay(slot))
    return [message for message in messages if message]


def _of_status(slot: Slot, name: str) -> str:
    cure = cure_of(slot.invalidation_reason)
    why = f" ({slot.invalidation_reason})" if slot.invalidation_reason else ""
    match slot.wal_status:
        case "lost":
            return (
                f"slot {name!r} has wal_status lost{why}: Postgres has invalidated it, and events from "
                f"{slot.confirmed_lsn} on cannot be streamed from it" + (f". {cure}" if cure else "")
            )
        case "unreserved":
            return f"slot {name!r} has wal_status unreserved{why}: the next checkpoint removes its WAL"
        case "extended":
            return f"slot {name!r} has wal_status extended: it keeps more WAL than max_wal_size ({_kept(slot)})"
    return f"slot {name!r} is invalidated: {slot.invalidation_reason}" if why else ""


def _of_limit(slot: Slot, name: str) -> str:
    limit, safe = slot.max_slot_wal_keep_size, slot.safe_wal_size
    if limit is None:
        if (slot.retained_bytes or 0) <= _MUCH_BYTES:
            return ""
        return f"slot {name!r} has no limit (max_slot_wal_keep_size = -1) and {_kept(slot)}: check the disk"
    if safe is None or safe >= limit * _LOW_SHARE:
        return ""
    return (
        f"slot {name!r} may keep {size_text(max(0, safe))} more before Postgres invalidates it "
        f"(max_slot_wal_keep_size = {size_text(limit)}): raise this setting, or let the reader catch up"
    )


def _of_growth(slot: Slot, name: str) -> str:
    left_s = slot.time_to_trouble_s
    if left_s is None or left_s >= _SOON_S:
        return ""
    return (
        f"slot {name!r} keeps {size_text(slot.growth_bytes_s)} more each second; at this rate Postgres invalidates it "
        f"in {duration_text(left_s)}"
    )


def _of_replay(slot: Slot) -> str:
    if slot.is_following is not False or not slot.replay_behind_bytes:
        return ""
    return (
        f"the standby that has the slot is {size_text(slot.replay_behind_bytes)} behind the primary and does not "
        "replay: it receives no WAL, or its replay is paused (pg_is_wal_replay_paused())"
    )


def _kept(slot: Slot) -> str:
    return f"{size_text(slot.retained_bytes)} kept"

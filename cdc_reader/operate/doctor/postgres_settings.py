"""Postgres' settings, used slots and WAL senders -> findings about the server.

Pure.

Source: https://www.postgresql.org/docs/current/runtime-config-replication.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.operate.doctor.finding import Finding, fail, fine, tried, warn
from outhaul.cdc_reader.postgres.preflight import check_version, check_wal_level
from outhaul.cdc_reader.postgres.provider import SELF_RUN
from outhaul.sink.quantities import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.cdc_reader.postgres.provider import Provider
    from outhaul.sink.settings import Settings

_NEWEST = 18
# Swapping or a garbage collection can delay a reader's answer by this long, in seconds.
_SHORT_S = 5.0
# The reader answers this often within wal_sender_timeout (cdc_reader/reader.py).
_ANSWERS = 4

QUERY: LiteralString = """
    SELECT current_setting('server_version_num')::int AS version, current_setting('wal_level') AS wal_level,
           current_setting('effective_wal_level', true) AS effective_wal_level,
           current_setting('max_replication_slots')::int AS max_slots,
           (SELECT count(*)::int FROM pg_replication_slots) AS used_slots,
           current_setting('max_wal_senders')::int AS max_senders,
           (SELECT count(*)::int FROM pg_stat_replication) AS used_senders,
           (SELECT setting::float / 1000 FROM pg_settings WHERE name = 'wal_sender_timeout') AS wal_sender_timeout_s,
           (SELECT setting::int FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS slot_keep_mb,
           (SELECT setting::int FROM pg_settings WHERE name = 'idle_replication_slot_timeout') AS idle_slot_timeout_s,
           current_setting('track_commit_timestamp') = 'on' AS commit_timestamps"""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of the server, and what is in use; None if its version has no such setting."""

    version: int  # server_version_num
    wal_level: str
    effective_wal_level: str | None
    max_slots: int
    used_slots: int
    max_senders: int
    used_senders: int
    wal_sender_timeout_s: float
    slot_keep_mb: int  # max_slot_wal_keep_size; -1 without a limit
    idle_slot_timeout_s: int | None
    commit_timestamps: bool


def judge(
    server: ServerSettings, settings: Settings, *, has_slot: bool, streams: bool, provider: Provider = SELF_RUN
) -> Iterator[Finding]:
    """Judge all; `has_slot` and `streams` tell whether the slot exists, and whether a session streams from it."""
    yield version(server.version)
    yield from managed(provider, settings)
    yield wal_level(server.wal_level, server.effective_wal_level, provider)
    yield slots(server.used_slots, server.max_slots, has_slot=has_slot, provider=provider)
    yield senders(server.used_senders, server.max_senders, streams=streams, provider=provider)
    yield sender_timeout(server.wal_sender_timeout_s, settings, provider)
    yield slot_keep(server.slot_keep_mb, provider)
    if server.idle_slot_timeout_s is not None:
        yield idle_slot_timeout(server.idle_slot_timeout_s, provider)
    stamps = "on" if server.commit_timestamps else "off"
    yield fine("track_commit_timestamp", f"{stamps}, not needed")


def judge_sender(
    server: ServerSettings, settings: Settings, provider: Provider = SELF_RUN, *, has_slot: bool
) -> Iterator[Finding]:
    """Judge the settings of a server other than the primary, if that server has the slot."""
    yield wal_level(server.wal_level, server.effective_wal_level, provider)
    yield slots(server.used_slots, server.max_slots, has_slot=has_slot, provider=provider)
    yield senders(server.used_senders, server.max_senders, streams=has_slot, provider=provider)
    yield sender_timeout(server.wal_sender_timeout_s, settings, provider)
    yield slot_keep(server.slot_keep_mb, provider)
    if server.idle_slot_timeout_s is not None:
        yield idle_slot_timeout(server.idle_slot_timeout_s, provider)


def version(number: int) -> Finding:
    """Judge `server_version_num`."""
    major = number // 10000
    name = f"{major}.{number % 10000}"
    if major > _NEWEST:
        return warn("version", f"{name} is newer than {_NEWEST}, the newest version that outhaul is tested with")
    return tried("version", name, lambda: check_version(number))


def managed(provider: Provider, settings: Settings) -> Iterator[Finding]:
    """Name the provider, and judge whether a slot that it drops is created again."""
    if not provider.name:
        return
    yield fine("provider", f"{provider.name}: {provider.page}")
    if not provider.drops_slots:
        return
    if warning := provider.slot_warning(heals=settings.heal == "auto"):
        yield warn("idle slots", warning, "OUTHAUL_HEAL=auto")
    else:
        yield fine("idle slots", "the reader creates a dropped slot again, and copies the skipped events")


def wal_level(level: str, effective: str | None, provider: Provider = SELF_RUN) -> Finding:
    """Judge wal_level; Postgres 19 raises its effective level by itself with the first logical slot."""
    found = level if effective is None else f"{level}, effective {effective}"
    if effective is not None and level == "replica" != effective:
        return fine("wal_level", found)
    if effective is not None and level == "replica":
        return warn("wal_level", f"{found}; the first logical slot makes it logical", provider.make_logical())
    return tried("wal_level", found, lambda: check_wal_level(level, provider))


def slots(used: int, most: int, *, has_slot: bool, provider: Provider = SELF_RUN) -> Finding:
    """Judge max_replication_slots."""
    lacking = "no second slot can be created" if has_slot else "outhaul's slot cannot be created"
    return _room("max_replication_slots", used, most, lacking, provider, is_fatal=not has_slot)


def senders(used: int, most: int, *, streams: bool, provider: Provider = SELF_RUN) -> Finding:
    """Judge max_wal_senders."""
    lacking = "a reader that takes over cannot connect" if streams else "the reader cannot connect"
    return _room("max_wal_senders", used, most, lacking, provider, is_fatal=not streams)


def _room(name: str, used: int, most: int, lacking: str, provider: Provider, *, is_fatal: bool) -> Finding:
    found = f"{max(0, most - used)} of {most} free"
    if used < most:
        return fine(name, found)
    todo = provider.change(name, str(most + 10), restart=True)
    return (fail if is_fatal else warn)(name, f"{found}: {lacking}", todo)


def sender_timeout(timeout_s: float, settings: Settings, provider: Provider = SELF_RUN) -> Finding:
    """Judge wal_sender_timeout, compared with the interval at which the reader answers; both in seconds."""
    check = "wal_sender_timeout"
    todo = provider.change(check, "60s")
    if not timeout_s:
        return warn(check, "0: Postgres never ends the session of a dead reader, so its slot stays in use", todo)
    if timeout_s < max(_SHORT_S, _ANSWERS * settings.status_interval_s):
        interval_s = min(settings.status_interval_s, timeout_s / _ANSWERS)
        return warn(
            check, f"{timeout_s:g} s is short: the reader must answer every {interval_s:g} s, or its session ends", todo
        )
    return fine(check, f"{timeout_s:g} s; the reader answers every {settings.status_interval_s:g} s")


def slot_keep(limit_mb: int, provider: Provider = SELF_RUN) -> Finding:
    """Judge max_slot_wal_keep_size, in MB; -1 is no limit."""
    check = "max_slot_wal_keep_size"
    if limit_mb < 0:
        found = "no limit: while ClickHouse does not answer, the slot can fill the server's disk"
        if check in provider.fixed:
            todo = "OUTHAUL_PARK_WAL_BYTES=50GB  # less than the free space; the reader drops a slot that keeps more"
            return warn(check, found, todo)
        return warn(
            check,
            found,
            f"{provider.change(check, '50GB')}  -- choose less than the free space; a slot that keeps more is lost",
        )
    return fine(check, f"{size_text(limit_mb << 20)}: a slot that keeps more is lost")


def idle_slot_timeout(timeout_s: int, provider: Provider = SELF_RUN) -> Finding:
    """Judge idle_replication_slot_timeout, in seconds."""
    check = "idle_replication_slot_timeout"
    if timeout_s:
        return warn(
            check,
            f"{timeout_s} s: a slot that no reader uses for longer is lost",
            provider.change(check, "0"),
        )
    return fine(check, "0: an unused slot is not lost")

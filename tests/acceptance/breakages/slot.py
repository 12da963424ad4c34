"""Troubles of the slot and of the log that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.acceptance.breakages.table import steadily, trouble
from tests.acceptance.commands import outhaul
from tests.conftest import until

if TYPE_CHECKING:
    from tests.acceptance.breakages.table import Mend, Patient
    from tests.conftest import World

_MIB = 1 << 20
_LIMIT_MB = 64
# A megabyte of log that decodes to nothing.
BALLAST = "SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1 << 20))"


@trouble("OuthaulSlotGone", "OuthaulNotCapturing", mutes=("OuthaulNotCapturing",), quiet=("OuthaulSlotInactive",))
def slot_dropped(patient: Patient) -> Mend:
    world = patient.world
    _reader_gone(patient)
    world.sql("SELECT pg_drop_replication_slot(%s)", world.settings.slot)

    def mend() -> None:
        outhaul(world, "slot", "create", "--yes")
        patient.start("reader")

    return mend


@trouble(
    "OuthaulWalLimitNear",
    "OuthaulWalLimitAhead",
    "OuthaulNotCapturing",
    quiet=("OuthaulSlotUnreserved", "OuthaulSlotLost", "OuthaulWalGrows"),
    sizes={"10 * 2^30": "10 * 2^20"},
)
def log_near_its_limit(patient: Patient) -> Mend:
    """Without a reader the slot keeps all but a sixth of what it may."""
    _reader_gone(patient)
    _limit(patient, _LIMIT_MB)
    until(lambda: _writes(patient.world) < _LIMIT_MB * _MIB // 6, what="little is left of the limit")

    def mend() -> None:
        patient.start("reader")
        # Where a slot begins moves when the log says which transactions run, as it does every 15 s where there is news.
        until(lambda: _slot(patient.world, "active"), what="the reader streams")

    return mend


@trouble("OuthaulSlotUnreserved", "OuthaulWalLimitNear", quiet=("OuthaulSlotLost", "OuthaulSlotGone"))
def log_past_its_limit(patient: Patient) -> Mend:
    _reader_gone(patient)
    _limit(patient, 16)
    until(lambda: _writes(patient.world) < 0, what="nothing is left of the limit")
    until(lambda: _slot(patient.world, "wal_status") == "unreserved", what="the slot is unreserved")

    def mend() -> None:
        _limit(patient, 1024)
        patient.start("reader")

    return mend


@trouble(
    "OuthaulSlotLost",
    "OuthaulNotCapturing",
    mutes=("OuthaulNotCapturing",),
    quiet=("OuthaulSlotInactive", "OuthaulSlotUnreserved", "OuthaulSlotGone"),
)
def slot_lost(patient: Patient) -> Mend:
    world = patient.world
    _reader_gone(patient)
    _limit(patient, 16)
    until(lambda: _writes(world) < 0, what="nothing is left of the limit")
    until(
        lambda: world.conn.execute("CHECKPOINT") and _slot(world, "wal_status") == "lost",
        what="Postgres gives the slot up",
    )

    def mend() -> None:
        outhaul(world, "slot", "reset", "--recreate", "--yes")
        patient.start("reader")

    return mend


@trouble(
    "OuthaulWalGrows",
    quiet=("OuthaulWalLimitNear", "OuthaulWalLimitAhead"),
    minute_s=0.1,
    sizes={"10 * 2^30": "10 * 2^20"},
)
def log_that_grows_without_a_limit(patient: Patient) -> Mend:
    _reader_gone(patient)
    stop = steadily(patient, BALLAST, every_s=0.2)

    def mend() -> None:
        stop()
        patient.start("reader")

    return mend


@trouble(
    "OuthaulReaderParked",
    "OuthaulClickHouseUnreachable",
    quiet=("OuthaulNotCapturing", "OuthaulSlotGone", "OuthaulSlotInactive"),
    settings={"park_wal_bytes": 8 * _MIB},
)
def parked_while_clickhouse_is_away(patient: Patient) -> Mend:
    patient.clickhouse.refuse()
    patient.world.insert(3)
    stop = steadily(patient, BALLAST, every_s=0.2)
    until(lambda: '"parked"' in patient.world.pipeline.log("reader"), what="the reader gives its slot up")
    stop()
    return patient.clickhouse.heal


def _reader_gone(patient: Patient) -> None:
    world = patient.world
    world.pipeline.kill("reader")
    world.insert(3)
    until(lambda: not _slot(world, "active"), what="the slot is free")


def _limit(patient: Patient, megabytes: int) -> None:
    def reset() -> None:
        patient.world.conn.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        patient.world.conn.execute("SELECT pg_reload_conf()")

    patient.undo.callback(reset)
    patient.world.conn.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{megabytes}MB'")
    patient.world.conn.execute("SELECT pg_reload_conf()")
    limit = "SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'"
    until(lambda: patient.world.sql(limit) == megabytes, what="Postgres applies the limit")


def _writes(world: World) -> int:
    """Write a megabyte of log, and return how many bytes more the slot may keep."""
    world.conn.execute(BALLAST)
    return int(_slot(world, "safe_wal_size"))


def _slot(world: World, column: str) -> Any:
    return world.sql(f"SELECT {column} FROM pg_replication_slots WHERE slot_name = %s", world.settings.slot)

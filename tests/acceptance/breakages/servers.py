"""Troubles of the three servers as such: gone, unreachable, full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import redis

from tests.acceptance.breakages.table import trouble
from tests.conftest import until

if TYPE_CHECKING:
    from tests.acceptance.breakages.table import Mend, Patient

# So much that what other clients take and give back makes no difference to how full the server is.
_BALLAST_BYTES = 256 << 20


@trouble(
    "OuthaulPostgresUnreachable",
    "OuthaulNotCapturing",
    "OuthaulSessionsBreak",
    "OuthaulExporterFails",
    mutes=("OuthaulNotCapturing", "OuthaulSessionsBreak", "OuthaulExporterFails"),
    quiet=("OuthaulSlotInactive", "OuthaulSlotGone", "OuthaulWorkersGone"),
)
def postgres_killed(patient: Patient) -> Mend:
    world = patient.world
    world.stack.kill("postgres")

    def mend() -> None:
        world.stack.up(["postgres"])
        world.conn.close()
        world.conn = psycopg.connect(world.dsn, autocommit=True)

    patient.undo.callback(mend)
    return mend


# Each session ends as soon as it begins, so most checks find no session.
@trouble("OuthaulSessionsBreak", quiet=("OuthaulPostgresUnreachable", "OuthaulSlotGone"))
def link_to_postgres_cut_again_and_again(patient: Patient) -> Mend:
    for number in range(6):
        patient.postgres.cut()
        until(lambda: _value(patient, "session_ends_total") > number, what="the session has ended")  # noqa: B023
        patient.world.insert()
        patient.world.assert_once_each()
    # What has happened is over by itself.
    return lambda: None


@trouble(
    "OuthaulPostgresUnreachable",
    "OuthaulReaderSilent",
    mutes=("OuthaulReaderSilent",),
    quiet=("OuthaulSlotGone", "OuthaulSessionsBreak"),
    # Nearly four minutes, the longest that a reader may be told to wait; a minute has to be long enough to look.
    settings={"receive_timeout_s": 38.0},
    minute_s=10,
)
def link_to_postgres_held(patient: Patient) -> Mend:
    """Nobody is told, and the reader is patient: it ends the session by itself after its own time."""
    patient.postgres.hold()
    return patient.postgres.heal


@trouble(
    "OuthaulRedisUnreachable",
    "OuthaulReaderRetries",
    "OuthaulNothingStored",
    "OuthaulLagHigh",
    "OuthaulExporterFails",
    mutes=("OuthaulReaderRetries", "OuthaulNothingStored", "OuthaulLagHigh", "OuthaulExporterFails"),
    quiet=("OuthaulNotCapturing", "OuthaulReaderSilent", "OuthaulSlotInactive"),
)
def redis_killed(patient: Patient) -> Mend:
    """The reader waits without end, and captures meanwhile as much as it may have in flight."""
    patient.world.stack.kill("redis")
    patient.world.insert(3)
    return lambda: patient.world.stack.up(["redis"])


@trouble("OuthaulRedisFull", quiet=("OuthaulRedisUnreachable", "OuthaulReaderRetries"))
def redis_filled(patient: Patient) -> Mend:
    """Somebody else's keys leave little of `maxmemory`."""
    client = redis.Redis.from_url(patient.world.env["OUTHAUL_REDIS_URL"], socket_timeout=10)

    def used() -> int:
        return int(client.info("memory")["used_memory"])

    def mend() -> None:
        client.config_set("maxmemory", 0)
        client.delete("ballast")

    patient.undo.callback(client.close)
    patient.undo.callback(mend)
    client.setrange("ballast", _BALLAST_BYTES, b"x")
    client.config_set("maxmemory", int(used() / 0.95))
    return lambda: client.delete("ballast")


@trouble(
    "OuthaulClickHouseUnreachable",
    "OuthaulNothingStored",
    "OuthaulLagHigh",
    "OuthaulLagVeryHigh",
    "OuthaulWorkerRetries",
    "OuthaulExporterFails",
    mutes=(
        "OuthaulNothingStored",
        "OuthaulLagHigh",
        "OuthaulLagVeryHigh",
        "OuthaulWorkerRetries",
        "OuthaulExporterFails",
    ),
    quiet=("OuthaulNotCapturing", "OuthaulReaderSilent", "OuthaulMessagesWait", "OuthaulWorkersGone"),
    # An attempt takes a second, since each of its requests is repeated, and the alert counts attempts.
    minute_s=2.0,
)
def clickhouse_killed(patient: Patient) -> Mend:
    patient.world.stack.kill("clickhouse")
    patient.world.insert(3)
    return lambda: patient.world.stack.up(["clickhouse"])


def _value(patient: Patient, name: str) -> float:
    return patient.pages.value("reader", f"outhaul_reader_{name}") or 0

"""Troubles of event_log: rows that vanish, parts that are not merged, inserts that take long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.acceptance.breakages.table import steadily, trouble
from tests.acceptance.commands import outhaul
from tests.acceptance.test_replay import lose

if TYPE_CHECKING:
    from tests.acceptance.breakages.table import Mend, Patient

EVENT = "INSERT INTO outbox (event_type, environment, event_context) VALUES ('tested', 'test', '{}')"
# Each piece waits so long on its way there, and on its way back.
_SLOW_S = 3.0


@trouble("OuthaulAuditMissing", quiet=("OuthaulAuditStale",))
def row_lost(patient: Patient) -> Mend:
    lose(patient.world, "id = 2")
    return lambda: outhaul(patient.world, "verify", "--repair")


@trouble("OuthaulViewNotExact", "OuthaulViewDiffers", quiet=("OuthaulViewRefuses", "OuthaulAuditMissing"))
def view_that_lost_a_row(patient: Patient) -> Mend:
    """Its target remembers no tokens, either."""
    world = patient.world
    world.clickhouse.command("CREATE TABLE ids (id Int64) ENGINE = MergeTree ORDER BY id")
    world.clickhouse.command("CREATE MATERIALIZED VIEW to_ids TO ids AS SELECT id FROM event_log")
    world.insert(5)
    world.assert_once_each()
    world.clickhouse.command("ALTER TABLE ids DELETE WHERE id % 2 = 1 SETTINGS mutations_sync = 2")

    def mend() -> None:
        world.clickhouse.command("ALTER TABLE ids MODIFY SETTING non_replicated_deduplication_window = 10000")
        world.clickhouse.command("TRUNCATE TABLE ids")
        world.clickhouse.command("INSERT INTO ids SELECT id FROM event_log")

    return mend


@trouble(
    "OuthaulTooManyParts",
    "OuthaulInsertsRejected",
    "OuthaulWorkerRetries",
    "OuthaulNothingStored",
    quiet=("OuthaulClickHouseUnreachable", "OuthaulNotCapturing"),
)
def parts_that_are_not_merged(patient: Patient) -> Mend:
    """Merges stand, as a full disk or a mutation would make them, and the table has a limit of its own."""
    _settings(patient, parts_to_delay_insert=6, parts_to_throw_insert=6)
    for _ in range(4):
        patient.world.insert()
        patient.world.assert_once_each()
    stop = steadily(patient, EVENT, every_s=0.3)

    def mend() -> None:
        stop()
        _merge(patient)
        patient.world.assert_once_each()
        _merge(patient)

    return mend


@trouble("OuthaulInsertsDelayed", quiet=("OuthaulInsertsRejected", "OuthaulTooManyParts"))
def parts_that_slow_inserts_down(patient: Patient) -> Mend:
    _settings(patient, parts_to_delay_insert=2, parts_to_throw_insert=3000)
    stop = steadily(patient, EVENT, every_s=0.3)

    def mend() -> None:
        stop()
        _merge(patient)

    return mend


@trouble("OuthaulViewRefuses", quiet=("OuthaulDeadLetters", "OuthaulLagHigh", "OuthaulReaderRetries"))
def a_view_that_cannot_cast(patient: Patient) -> Mend:
    clickhouse = patient.world.clickhouse
    clickhouse.command(
        "CREATE TABLE amounts (n UInt64) ENGINE = MergeTree ORDER BY n "
        "SETTINGS non_replicated_deduplication_window = 10000"
    )
    clickhouse.command(
        "CREATE MATERIALIZED VIEW to_amounts TO amounts AS "
        "SELECT toUInt64(JSONExtractString(event_context, 'n')) AS n FROM event_log"
    )
    patient.world.conn.execute(
        "INSERT INTO outbox (event_type, environment, event_context) VALUES ('tested', 'test', '{\"n\": \"x\"}')"
    )

    def mend() -> None:
        clickhouse.command("DROP VIEW to_amounts SYNC")

    return mend


@trouble("OuthaulInsertsSlow", "OuthaulLagHigh", quiet=("OuthaulNotCapturing", "OuthaulWorkersGone"))
def slow_link_to_clickhouse(patient: Patient) -> Mend:
    patient.clickhouse.slow(_SLOW_S)
    stop = steadily(patient, EVENT, every_s=0.3)

    def mend() -> None:
        stop()
        patient.clickhouse.heal()

    return mend


def _settings(patient: Patient, **values: int) -> None:
    told = ", ".join(f"{name} = {value}" for name, value in values.items())
    patient.world.clickhouse.command(f"ALTER TABLE event_log MODIFY SETTING {told}")


def _merge(patient: Patient) -> None:
    patient.world.clickhouse.command("SYSTEM START MERGES event_log")
    patient.world.clickhouse.command("OPTIMIZE TABLE event_log FINAL")

"""Troubles of our own processes: killed, asleep, paused, ended again and again."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.acceptance.breakages.table import steadily, trouble
from tests.acceptance.operator import outhaul
from tests.acceptance.test_watchdog import celery_of
from tests.conftest import until

if TYPE_CHECKING:
    from tests.acceptance.breakages.table import Mend, Patient

EVENT = "INSERT INTO outbox (event_type, environment, event_context) VALUES ('tested', 'test', '{}')"


def kill(patient: Patient, name: str) -> Mend:
    """Kill a process while events come."""
    patient.world.pipeline.kill(name)
    patient.world.insert(3)
    return lambda: patient.start(name)


@trouble(
    "OuthaulNotCapturing",
    "OuthaulSlotInactive",
    "OuthaulProcessDown",
    mutes=("OuthaulSlotInactive", "OuthaulProcessDown"),
)
def reader_killed(patient: Patient) -> Mend:
    return kill(patient, "reader")


@trouble("OuthaulNotCapturing", "OuthaulProcessDown", mutes=("OuthaulProcessDown",))
def reader_asleep(patient: Patient) -> Mend:
    """It holds its slot for a while, and does nothing."""
    patient.world.pipeline.signal("reader", signal.SIGSTOP)
    patient.world.insert(3)
    return lambda: patient.world.pipeline.signal("reader", signal.SIGCONT)


@trouble("OuthaulReaderSilent", quiet=("OuthaulNotCapturing", "OuthaulProcessDown"))
def loop_of_the_reader_stands(patient: Patient) -> Mend:
    """It answers Prometheus, and turns no more."""
    patient.lay("reader.stored", "hold:15")
    patient.world.insert(3)
    # The hold is over by itself.
    return lambda: None


@trouble("OuthaulExporterGone", quiet=("OuthaulAuditStale", "OuthaulNotCapturing"))
def exporter_killed(patient: Patient) -> Mend:
    return kill(patient, "exporter")


@trouble("OuthaulPausedLong", "OuthaulAuditStale", quiet=("OuthaulNotCapturing", "OuthaulNothingStored"), minute_s=0.1)
def paused_for_hours(patient: Patient) -> Mend:
    """The slot stands, so nobody can say what is missing behind it."""
    outhaul(patient.world, "pause")
    patient.world.insert(3)
    return lambda: outhaul(patient.world, "resume")


@trouble("OuthaulWorkerRestarts", quiet=("OuthaulWorkersGone",))
def celery_killed_again_and_again(patient: Patient) -> Mend:
    for number in range(1, 5):
        os.killpg(celery_of(patient.world), signal.SIGKILL)
        until(lambda: _restarts(patient) >= number, what="Celery is started again")  # noqa: B023
    # What has happened is over by itself.
    return lambda: None


def _restarts(patient: Patient) -> float:
    counted = patient.pages.value("worker", "outhaul_worker_restarts_total") or 0
    # Before its answer to a look, Celery may not have begun.
    return counted if patient.pages.answer("worker", "/readyz")[0] == 200 else 0


@trouble(
    "OuthaulMessagesWait",
    "OuthaulNothingStored",
    "OuthaulLagHigh",
    mutes=("OuthaulNothingStored", "OuthaulLagHigh"),
    quiet=("OuthaulNotCapturing", "OuthaulWorkersGone"),
    settings={"batch_max_rows": 1},
)
def workers_that_are_busy_for_ever(patient: Patient) -> Mend:
    """All children wait for ClickHouse, which says nothing; more messages come than they have taken."""
    patient.clickhouse.hold()
    stop = steadily(patient, EVENT, every_s=0.1)

    def mend() -> None:
        stop()
        patient.clickhouse.heal()

    return mend

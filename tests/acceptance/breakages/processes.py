"""Troubles of our own processes: killed, asleep, paused, ended again and again."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from outhaul.sink.redis_keys import failures_key
from tests.acceptance.breakages.table import trouble
from tests.acceptance.commands import outhaul
from tests.acceptance.test_watchdog import children
from tests.conftest import until

if TYPE_CHECKING:
    from tests.acceptance.breakages.table import Mend, Patient


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
    killed: set[int] = set()
    while len(killed) < 4:
        (celery,) = until(lambda: _leaders(patient, but=killed), what="Celery is started again")
        os.killpg(celery, signal.SIGKILL)
        killed.add(celery)
    # What has happened is over by itself.
    return lambda: None


def _leaders(patient: Patient, *, but: set[int]) -> set[int]:
    """Return the children of the watchdog that have got as far as to lead a group of their own."""
    return {child for child in set(children(patient.world)) - but if os.getpgid(child) == child}


@trouble("OuthaulUnexpectedError", quiet=("OuthaulNotCapturing", "OuthaulWorkersGone", "OuthaulWorkerRestarts"))
def a_task_fails_in_a_way_that_nobody_foresaw(patient: Patient) -> Mend:
    patient.lay("probe.begun", "bug")
    outhaul(patient.world, "doctor", code=None)
    # What has happened is shown for some minutes.
    return lambda: patient.world.payloads.drop([failures_key(patient.world.settings.source)])


@trouble(
    "OuthaulMessagesWait",
    "OuthaulNothingStored",
    "OuthaulLagHigh",
    mutes=("OuthaulNothingStored", "OuthaulLagHigh"),
    quiet=("OuthaulNotCapturing", "OuthaulReaderSilent", "OuthaulWorkersGone"),
    settings={"batch_max_rows": 10},
)
def workers_that_are_busy_for_ever(patient: Patient) -> Mend:
    """All children wait for ClickHouse, which says nothing; more messages come than they have taken."""
    patient.clickhouse.hold()
    patient.world.insert(200)
    return patient.clickhouse.heal

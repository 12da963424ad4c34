"""Faults done both to the pipeline as it is and to one that lacks a net: quiet ones, that always go the same way."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from outhaul.sink.fence import list_running
from outhaul.sink.lanes import STREAM
from outhaul.sink.replicas import ONE_SERVER
from tests.conftest import until

if TYPE_CHECKING:
    from tests.faults.rig import Rig


def two_sendings_of_a_batch_insert_at_once(rig: Rig) -> None:
    """Both carry the same token, and neither sees a row of the other's when it asks."""
    rig.lay("task.fetched", "stop")
    rig.insert(50)
    pid = rig.fired("task.fetched")
    _wake_during_an_insert(rig, pid)


def two_readers_batches_insert_at_once(rig: Rig) -> None:
    """Other rows join its own in the next reader's batch, so no token is the same; neither sees the other's."""
    rig.lay("task.fetched", "stop")
    rig.insert(50)
    pid = rig.fired("task.fetched")
    rig.down("reader")
    rig.insert(50)
    rig.up("reader")
    _wake_during_an_insert(rig, pid)


def a_task_sleeps_while_its_batch_is_sent_again(rig: Rig) -> None:
    """The second is stored, then the first wakes up and inserts."""
    rig.lay("task.fetched", "stop")
    rig.insert(50)
    pid = rig.fired("task.fetched")
    rig.flow("the batch is sent again and stored")
    _wake(rig, pid)


def a_task_sleeps_over_a_change_of_reader(rig: Rig) -> None:
    """Other rows join its own in the next reader's batch, so no token is the same."""
    rig.lay("task.fetched", "stop")
    rig.insert(50)
    pid = rig.fired("task.fetched")
    rig.down("reader")
    rig.insert(50)
    rig.up("reader")
    rig.flow("the next reader's batch is stored")
    _wake(rig, pid)


def a_reader_dies_before_feedback(rig: Rig) -> None:
    """All is stored and reported; what the next reader cuts is another batch, with another token."""
    rig.lay("reader.stored", "kill")
    rig.insert(50)
    rig.fired("reader.stored")
    rig.insert(50)
    rig.flow("the next reader goes on")


def _wake(rig: Rig, pid: int) -> None:
    os.kill(pid, signal.SIGCONT)
    until(lambda: rig.log("worker").count('"batch_done"') == 2, what="the sleeper is done too")


def _wake_during_an_insert(rig: Rig, pid: int) -> None:
    clickhouse, settings = rig.world.clickhouse, rig.world.settings
    until(lambda: list_running(clickhouse, settings, STREAM, ONE_SERVER), what="the other insert runs")
    _wake(rig, pid)

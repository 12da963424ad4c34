"""The links to ClickHouse, and ClickHouse itself: from the worker that inserts, from the reader that asks."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from outhaul.deploy.local.fault_proxy import Act, Trap
from tests.conftest import until
from tests.faults.grid import cell

if TYPE_CHECKING:
    from tests.faults.rig import Rig

INSERT = rb"ArrowStream"
QUESTION = rb"row_number"
FENCE = rb"event_log_epochs.{1,20}source"


def _caught(rig: Rig, trap: Trap) -> None:
    rig.clickhouse.catch(trap).wait()


@cell("clickhouse", "refuse", "streaming")
def refuse(rig: Rig) -> None:
    rig.clickhouse.refuse()
    time.sleep(3)
    rig.clickhouse.heal()


@cell("clickhouse", "refuse", "start of reader and worker")
def refuse_start(rig: Rig) -> None:
    rig.clickhouse.refuse()
    rig.kill("reader")
    rig.kill("worker")
    until(lambda: "OUTHAUL_CLICKHOUSE_URL" in rig.log("reader"), what="the reader says why")
    rig.clickhouse.heal()


@cell("clickhouse", "cut mid-message", "insert")
def cut_insert(rig: Rig) -> None:
    _caught(rig, Trap(Act.CUT_REQUEST, asks=INSERT, after=2000, times=3))


@cell("clickhouse", "fail after the effect", "insert sent but unanswered")
def lose_insert(rig: Rig) -> None:
    """The client itself sends the insert again; its callers do not see the failure."""
    _caught(rig, Trap(Act.LOSE_ANSWER, asks=INSERT))


@cell("clickhouse", "fail after the effect", "insert sent again and unanswered", core=True)
def lose_inserts(rig: Rig) -> None:
    """The client's own second try is lost too, and the task comes again."""
    _caught(rig, Trap(Act.LOSE_ANSWER, asks=INSERT, times=5))


@cell("clickhouse", "fail after the effect", "recovery: fence")
def lose_fence(rig: Rig) -> None:
    trap = rig.clickhouse.catch(Trap(Act.LOSE_ANSWER, asks=FENCE, times=2))
    rig.postgres.cut()
    trap.wait()


@cell("clickhouse", "cut mid-message", "recovery: question")
def cut_question(rig: Rig) -> None:
    trap = rig.clickhouse.catch(Trap(Act.LOSE_ANSWER, asks=QUESTION, after=50, times=2))
    rig.postgres.cut()
    trap.wait()


@cell("clickhouse", "hold", "recovery: question")
def hold_question(rig: Rig) -> None:
    trap = rig.clickhouse.catch(Trap(Act.HOLD_ANSWER, asks=QUESTION))
    rig.postgres.cut()
    trap.wait()
    time.sleep(3)
    rig.clickhouse.heal()


@cell("clickhouse", "hold", "insert")
def hold_insert(rig: Rig) -> None:
    """Not yet executed; it arrives when the batch has been sent once more, or not at all."""
    trap = rig.clickhouse.catch(Trap(Act.HOLD_REQUEST, asks=INSERT, times=2))
    trap.wait()
    time.sleep(4)
    rig.clickhouse.heal()


@cell("clickhouse", "hold", "insert sent but unanswered")
def hold_answer(rig: Rig) -> None:
    trap = rig.clickhouse.catch(Trap(Act.HOLD_ANSWER, asks=INSERT))
    trap.wait()
    time.sleep(4)
    rig.clickhouse.heal()


@cell("clickhouse", "hold", "insert of a reader that was replaced", core=True)
def hold_old_insert(rig: Rig) -> None:
    """It arrives at ClickHouse when the next reader has asked what is stored, and sent it."""
    trap = rig.clickhouse.catch(Trap(Act.HOLD_REQUEST, asks=INSERT))
    trap.wait()
    rig.kill("reader")
    until(lambda: '"recovered"' in rig.log("reader"), what="the next reader")
    rig.flow()
    rig.clickhouse.heal()


@cell("clickhouse", "slow", "streaming")
def slow(rig: Rig) -> None:
    rig.clickhouse.slow(0.2)
    time.sleep(3)
    rig.clickhouse.heal()


@cell("clickhouse", "cut", "again and again")
def cut_often(rig: Rig) -> None:
    for _ in range(8):
        rig.clickhouse.cut()
        time.sleep(0.3)


@cell("clickhouse", "SIGKILL", "streaming", core=True)
def kill_server(rig: Rig) -> None:
    rig.stack.kill("clickhouse")
    rig.stack.up(["clickhouse"])


@cell("clickhouse", "restart", "streaming")
def restart_server(rig: Rig) -> None:
    rig.stack.down(["clickhouse"])
    rig.stack.up(["clickhouse"])


@cell("clickhouse", "SIGSTOP/SIGCONT", "streaming", core=True)
def stop_server(rig: Rig) -> None:
    pid = rig.stack.pid("clickhouse")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    time.sleep(5)
    os.kill(pid, signal.SIGCONT)

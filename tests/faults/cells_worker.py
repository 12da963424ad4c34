"""The worker: its children at each point of a task, and all of it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from tests.conftest import until
from tests.faults.grid import cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.rig import Rig

POINTS = {
    "task.begun": "task begun",
    "task.fetched": "before the insert",
    "task.stored": "insert done, stored not reported",
    "task.reported": "stored reported, message not acknowledged",
}


def _kill_child(point: str) -> Callable[[Rig], None]:
    def run(rig: Rig) -> None:
        rig.lay(point, "kill")
        rig.fired(point)

    return run


def _sleeping_child(point: str) -> Callable[[Rig], None]:
    def run(rig: Rig) -> None:
        """Its batch is sent again and stored; then it wakes up, in the same reader's life."""
        rig.lay(point, "stop")
        pid = rig.fired(point)
        until(lambda: '"sending_again"' in rig.log("reader"), what="the batch is given up")
        rig.flow()
        _wake(pid)

    return run


def _wake(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _failing_child(point: str) -> Callable[[Rig], None]:
    def run(rig: Rig) -> None:
        rig.lay(point, "raise")
        rig.fired(point)

    return run


for _point, _where in POINTS.items():
    cell("worker", "SIGKILL", _where, core=_point == "task.stored")(_kill_child(_point))

for _point in ("task.begun", "task.fetched", "task.stored"):
    cell("worker", "SIGSTOP/SIGCONT", POINTS[_point])(_sleeping_child(_point))

for _point in ("task.begun", "task.fetched"):
    cell("worker", "fail after the effect", f"error: {POINTS[_point]}")(_failing_child(_point))


@cell("worker", "SIGSTOP/SIGCONT", "before the insert, over a change of reader")
def zombie_of_an_old_epoch(rig: Rig) -> None:
    rig.lay("task.fetched", "stop")
    pid = rig.fired("task.fetched")
    rig.kill("reader")
    rig.insert(50)
    until(lambda: '"recovered"' in rig.log("reader"), what="the next reader")
    rig.flow()
    _wake(pid)


@cell("worker", "hold", "before the insert")
def hold(rig: Rig) -> None:
    rig.lay("task.fetched", "hold:4")
    rig.fired("task.fetched")
    time.sleep(4)


@cell("worker", "SIGKILL", "all of it")
def kill_all(rig: Rig) -> None:
    for _ in range(2):
        rig.kill("worker")
        rig.flow()


@cell("worker", "SIGKILL", "watchdog only, while a task runs", core=True)
def kill_parent(rig: Rig) -> None:
    rig.lay("task.fetched", "hold:2")
    rig.fired("task.fetched")
    os.kill(rig.pipeline.pid("worker"), signal.SIGKILL)
    rig.flow()


@cell("worker", "restart", "streaming")
def restart(rig: Rig) -> None:
    os.kill(rig.pipeline.pid("worker"), signal.SIGTERM)
    rig.flow()


@cell("worker", "SIGSTOP/SIGCONT", "all of it")
def stop_all(rig: Rig) -> None:
    rig.signal("worker", signal.SIGSTOP)
    time.sleep(7)
    rig.signal("worker", signal.SIGCONT)

"""The reader: at each point of dispatch, feedback and recovery, and all of it at once."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from tests.conftest import until
from tests.faults.grid import cell
from tests.faults.rig import beside

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.rig import Rig

STREAMING = {
    "dispatch.begin": "before dispatch",
    "dispatch.payload": "payload stored, message not sent",
    "dispatch.sent": "message sent",
    "reader.stored": "stored reported, feedback not sent",
}
RECOVERY = {
    "recovery.bound": "recovery: bound",
    "recovery.fenced": "recovery: fenced",
    "recovery.settled": "recovery: settled",
    "recovery.asked": "recovery: asked",
}


def _kill(point: str) -> Callable[[Rig], None]:
    def run(rig: Rig) -> None:
        rig.lay(point, "kill@3")
        rig.fired(point)

    return run


def _kill_recovering(point: str) -> Callable[[Rig], None]:
    def run(rig: Rig) -> None:
        rig.lay(point, "kill")
        rig.kill("reader")
        rig.fired(point)

    return run


def _fail(point: str) -> Callable[[Rig], None]:
    def run(rig: Rig) -> None:
        rig.lay(point, "raise")
        if point in RECOVERY:
            rig.postgres.cut()
        rig.fired(point)

    return run


def _sleeping(point: str) -> Callable[[Rig], None]:
    def run(rig: Rig) -> None:
        """A standby takes over; then the sleeper wakes up and goes on where it was."""
        with beside(rig, "reader") as second:
            until(lambda: "standing_by" in second.log("reader"), what="a standby")
            rig.lay(point, "stop")
            if point in RECOVERY:
                rig.kill("reader")
            # The reader that comes first meets the fail point; the other one takes over.
            pid = rig.fired(point)
            rig.flow("the other reader goes on")
            os.kill(pid, signal.SIGCONT)
            rig.flow()
            second.check()

    return run


for _point, _where in STREAMING.items():
    cell("reader", "SIGKILL", _where, core=_point == "reader.stored")(_kill(_point))
for _point, _where in RECOVERY.items():
    cell("reader", "SIGKILL", _where, core=_point == "recovery.asked")(_kill_recovering(_point))
for _point in ("dispatch.begin", "dispatch.payload", "dispatch.sent"):
    cell("reader", "fail after the effect", f"error: {STREAMING[_point]}")(_fail(_point))
for _point, _where in RECOVERY.items():
    cell("reader", "fail after the effect", f"error: {_where}")(_fail(_point))
for _point in ("dispatch.payload", "reader.stored"):
    cell("reader", "SIGSTOP/SIGCONT", STREAMING[_point])(_sleeping(_point))
for _point in ("recovery.bound", "recovery.asked"):
    cell("reader", "SIGSTOP/SIGCONT", RECOVERY[_point])(_sleeping(_point))


@cell("reader", "hold", "recovery: fenced")
def hold_recovery(rig: Rig) -> None:
    rig.lay("recovery.fenced", "hold:2")
    rig.postgres.cut()
    rig.fired("recovery.fenced")
    time.sleep(2)


@cell("reader", "SIGKILL", "any, again and again")
def kill_often(rig: Rig) -> None:
    for _ in range(3):
        rig.kill("reader")
        rig.flow()


@cell("reader", "restart", "streaming", core=True)
def restart(rig: Rig) -> None:
    os.kill(rig.pipeline.pid("reader"), signal.SIGTERM)
    rig.flow()


@cell("reader", "SIGKILL", "reader and worker at once")
def kill_both(rig: Rig) -> None:
    rig.kill("reader")
    rig.kill("worker")
    rig.flow()


@cell("reader", "SIGSTOP/SIGCONT", "no standby")
def stop_alone(rig: Rig) -> None:
    """The walsender gives it up meanwhile."""
    rig.signal("reader", signal.SIGSTOP)
    time.sleep(6)
    rig.signal("reader", signal.SIGCONT)

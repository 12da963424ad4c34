"""The link to Postgres, and Postgres itself."""

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


def _walsender(rig: Rig) -> int:
    query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"
    return int(until(lambda: rig.world.sql(query, rig.world.settings.slot), what="somebody streams"))


def _in_log(rig: Rig, words: str) -> None:
    until(lambda: words in rig.log("reader"), what=f"the reader says {words}")


@cell("postgres", "refuse", "streaming")
def refuse(rig: Rig) -> None:
    rig.postgres.refuse()
    _in_log(rig, "session_ended")
    time.sleep(1)
    rig.postgres.heal()


@cell("postgres", "refuse", "start of the reader")
def refuse_start(rig: Rig) -> None:
    rig.postgres.refuse()
    rig.kill("reader")
    _in_log(rig, "OUTHAUL_POSTGRES_DSN")
    rig.postgres.heal()


@cell("postgres", "cut mid-message", "rows", core=True)
def cut_rows(rig: Rig) -> None:
    trap = rig.postgres.catch(Trap(Act.LOSE_ANSWER, answers=b"cut-here", after=1500))
    rig.insert(300, kind="cut-here")
    trap.wait()
    _in_log(rig, "session_ended")


@cell("postgres", "cut mid-message", "start of the stream")
def cut_start(rig: Rig) -> None:
    trap = rig.postgres.catch(Trap(Act.CUT_REQUEST, asks=b"START_REPLICATION", after=15))
    rig.postgres.cut()
    trap.wait()


@cell("postgres", "fail after the effect", "start of the stream")
def lose_start(rig: Rig) -> None:
    """The walsender has the slot, and nobody listens to it."""
    trap = rig.postgres.catch(Trap(Act.LOSE_ANSWER, asks=b"START_REPLICATION"))
    rig.postgres.cut()
    trap.wait()


@cell("postgres", "fail after the effect", "question for the position")
def lose_position(rig: Rig) -> None:
    # The checks at the start of a session ask for the slot first, on a connection of their own.
    trap = rig.postgres.catch(Trap(Act.LOSE_ANSWER, asks=b"FROM pg_replication_slots WHERE slot_name", skip=1))
    rig.postgres.cut()
    trap.wait()


@cell("postgres", "fail after the effect", "feedback sent, not applied", core=True)
def deaf(rig: Rig) -> None:
    """Everything is stored and reported, and no feedback arrives; then the link goes."""
    trap = rig.postgres.catch(Trap(Act.DEAFEN, asks=b"START_REPLICATION"))
    rig.postgres.cut()
    trap.wait()
    rig.flow()
    before = rig.world.confirmed()
    rig.flow()
    until(
        lambda: (state := rig.world.reader_state()) and _number(state.confirmed_lsn) > before,
        what="the reader has sent feedback",
    )
    rig.kill("reader")


def _number(lsn: str) -> int:
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


@cell("postgres", "hold", "feedback until the walsender gives up")
def deaf_for_long(rig: Rig) -> None:
    trap = rig.postgres.catch(Trap(Act.DEAFEN, asks=b"START_REPLICATION"))
    rig.postgres.cut()
    trap.wait()
    ended = rig.log("reader").count("session_ended")
    until(lambda: rig.log("reader").count("session_ended") > ended, what="the walsender gives up")


@cell("postgres", "hold", "streaming")
def hold(rig: Rig) -> None:
    rig.postgres.hold()
    _in_log(rig, "session_ended")
    rig.postgres.heal()


@cell("postgres", "hold", "start of the stream")
def hold_start(rig: Rig) -> None:
    trap = rig.postgres.catch(Trap(Act.HOLD_ANSWER, asks=b"START_REPLICATION"))
    rig.postgres.cut()
    trap.wait()
    time.sleep(2)
    rig.postgres.heal()


@cell("postgres", "slow", "streaming")
def slow(rig: Rig) -> None:
    rig.postgres.slow(0.1)
    time.sleep(3)
    rig.postgres.heal()


@cell("postgres", "cut", "again and again")
def cut_often(rig: Rig) -> None:
    for _ in range(8):
        rig.postgres.cut()
        time.sleep(0.4)


@cell("postgres", "SIGTERM", "walsender")
def terminate(rig: Rig) -> None:
    rig.world.conn.execute("SELECT pg_terminate_backend(%s)", [_walsender(rig)])
    _in_log(rig, "session_ended")


@cell("postgres", "SIGSTOP/SIGCONT", "walsender")
def stop_walsender(rig: Rig) -> None:
    """It wakes up when the reader has given it up, and still has the slot until then."""
    pid = _walsender(rig)
    os.kill(pid, signal.SIGSTOP)
    try:
        _in_log(rig, "session_ended")
        time.sleep(1)
    finally:
        os.kill(pid, signal.SIGCONT)


@cell("postgres", "SIGKILL", "streaming", core=True)
def kill_server(rig: Rig) -> None:
    rig.stack.kill("postgres")
    rig.stack.up(["postgres"])


@cell("postgres", "restart", "streaming")
def restart_server(rig: Rig) -> None:
    rig.stack.down(["postgres"])
    time.sleep(1)
    rig.stack.up(["postgres"])

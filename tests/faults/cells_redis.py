"""The links to Redis, and Redis itself: between reader and broker, and between worker and broker."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from outhaul.deploy.local.fault_proxy import Act, Trap
from tests.conftest import until
from tests.faults.grid import cell

if TYPE_CHECKING:
    from tests.faults.rig import Rig

PAYLOAD = rb"\r\nSET\r\n\$\d+\r\n[^\r]*:payload:"
FETCH = rb"\r\nGET(?:RANGE)?\r\n\$\d+\r\n[^\r]*:payload:"
MESSAGE = rb"\r\nLPUSH\r\n\$\d+\r\nouthaul"
BEGUN = rb'"outcome": "begun"'
STORED = rb'"outcome": "stored"'


def _caught(rig: Rig, trap: Trap) -> None:
    rig.redis.catch(trap).wait()


@cell("redis", "refuse", "streaming")
def refuse(rig: Rig) -> None:
    rig.redis.refuse()
    time.sleep(3)
    rig.redis.heal()


@cell("redis", "refuse", "start of the reader")
def refuse_start(rig: Rig) -> None:
    rig.redis.refuse()
    rig.kill("reader")
    until(lambda: "OUTHAUL_REDIS_URL" in rig.log("reader"), what="the reader says why")
    rig.redis.heal()


@cell("redis", "cut mid-message", "payload, before dispatch")
def cut_payload(rig: Rig) -> None:
    _caught(rig, Trap(Act.CUT_REQUEST, asks=PAYLOAD, after=100, times=2))


@cell("redis", "cut mid-message", "payload stored, message not sent")
def cut_message(rig: Rig) -> None:
    _caught(rig, Trap(Act.CUT_REQUEST, asks=MESSAGE, after=60, times=2))


@cell("redis", "cut mid-message", "task begun")
def cut_begun(rig: Rig) -> None:
    _caught(rig, Trap(Act.CUT_REQUEST, asks=BEGUN, after=60))


@cell("redis", "cut mid-message", "insert done, stored not reported")
def cut_stored(rig: Rig) -> None:
    _caught(rig, Trap(Act.CUT_REQUEST, asks=STORED, after=60, times=2))


@cell("redis", "fail after the effect", "payload, before dispatch")
def lose_payload(rig: Rig) -> None:
    _caught(rig, Trap(Act.LOSE_ANSWER, asks=PAYLOAD))


@cell("redis", "fail after the effect", "message sent twice", core=True)
def lose_message(rig: Rig) -> None:
    """The broker has the message, the reader does not know it and sends another."""
    _caught(rig, Trap(Act.LOSE_ANSWER, asks=MESSAGE, times=3))


@cell("redis", "fail after the effect", "message on its way to the worker")
def lose_delivery(rig: Rig) -> None:
    """Redis has handed the message out, the worker never got it."""
    _caught(rig, Trap(Act.LOSE_ANSWER, answers=b"outhaul.write_batch", times=2))


@cell("redis", "fail after the effect", "payload on its way to the worker")
def lose_fetch(rig: Rig) -> None:
    _caught(rig, Trap(Act.LOSE_ANSWER, asks=FETCH, after=200))


@cell("redis", "fail after the effect", "stored reported, not acknowledged")
def lose_report(rig: Rig) -> None:
    """The report is on the list, the worker reports again."""
    _caught(rig, Trap(Act.LOSE_ANSWER, asks=STORED, times=3))


@cell("redis", "fail after the effect", "stored reported, not heard")
def lose_hearing(rig: Rig) -> None:
    """Redis has handed the report out, the reader never got it."""
    _caught(rig, Trap(Act.LOSE_ANSWER, answers=STORED, times=2))


@cell("redis", "hold", "streaming")
def hold(rig: Rig) -> None:
    """Longer than the clients' patience."""
    rig.redis.hold()
    time.sleep(7)
    rig.redis.heal()


@cell("redis", "hold", "message sent twice")
def hold_message(rig: Rig) -> None:
    """The reader gives up and sends another; then both arrive."""
    trap = rig.redis.catch(Trap(Act.HOLD_REQUEST, asks=MESSAGE))
    trap.wait()
    until(lambda: '"where": "dispatch"' in rig.log("reader"), what="the reader repeats itself")
    rig.redis.heal()


@cell("redis", "slow", "streaming")
def slow(rig: Rig) -> None:
    rig.redis.slow(0.05)
    time.sleep(3)
    rig.redis.heal()


@cell("redis", "cut", "again and again")
def cut_often(rig: Rig) -> None:
    for _ in range(8):
        rig.redis.cut()
        time.sleep(0.4)


@cell("redis", "SIGKILL", "streaming")
def kill_server(rig: Rig) -> None:
    """The append-only file brings back what was there a second before."""
    rig.valkey.end()
    time.sleep(0.5)
    rig.valkey.start()


@cell("redis", "restart", "streaming")
def restart_server(rig: Rig) -> None:
    rig.valkey.end(signal.SIGTERM)
    time.sleep(0.5)
    rig.valkey.start()


@cell("redis", "SIGSTOP/SIGCONT", "streaming")
def stop_server(rig: Rig) -> None:
    rig.valkey.signal(signal.SIGSTOP)
    time.sleep(7)
    rig.valkey.signal(signal.SIGCONT)


@cell("redis", "lose all data", "SIGKILL without persistence", core=True)
def lose_server(rig: Rig) -> None:
    rig.valkey.end()
    rig.valkey.forget()
    rig.valkey.start()


@cell("redis", "lose all data", "payload stored, message not sent")
def flush_before_message(rig: Rig) -> None:
    rig.lay("dispatch.payload", "hold:1")
    rig.fired("dispatch.payload")
    rig.valkey.client().flushall()


@cell("redis", "lose all data", "message sent")
def flush_messages(rig: Rig) -> None:
    """Nobody takes the messages, then they are gone."""
    rig.down("worker")
    until(lambda: rig.world.payloads.length(rig.world.settings.queue_key) >= 3, what="messages wait")
    rig.valkey.client().flushall()
    rig.up("worker")


@cell("redis", "lose all data", "task begun")
def flush_begun(rig: Rig) -> None:
    rig.lay("task.begun", "hold:1")
    rig.fired("task.begun")
    rig.valkey.client().flushall()


@cell("redis", "lose all data", "insert done, stored not reported")
def flush_stored(rig: Rig) -> None:
    rig.lay("task.stored", "hold:1")
    rig.fired("task.stored")
    rig.valkey.client().flushall()


@cell("redis", "lose all data", "again and again")
def flush_often(rig: Rig) -> None:
    for _ in range(10):
        rig.valkey.client().flushall()
        time.sleep(0.3)

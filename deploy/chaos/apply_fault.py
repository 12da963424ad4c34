"""Fault -> its effect on the pipeline, and its repair.

Edge: signals, the embedded stack, proxies and Redis commands. A fault ends before its function returns: stopped
processes continue, and killed ones are started again.
"""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import redis

from outhaul.deploy.local.fault_proxy import Act, Proxy, Trap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from outhaul.deploy.chaos.fault_plan import Fault
    from outhaul.deploy.demo.pipeline import Pipeline
    from outhaul.deploy.local.stack import Stack

# Only inserts have a token, so the traps catch no other request to ClickHouse.
_INSERT = rb"insert_deduplication_token"
_SLOW_S = 0.05

_WALSENDER = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s AND active"


@dataclass(frozen=True, slots=True)
class Victims:
    """What faults are inflicted on; `wait` sleeps for a number of seconds."""

    stack: Stack
    pipeline: Pipeline
    proxies: Mapping[str, Proxy]
    slot: str
    wait: Callable[[float], None]


def inflict(fault: Fault, victims: Victims) -> None:
    """Inflict one fault, and return after its end."""
    match fault.target:
        case "reader" | "worker":
            _process(fault, victims)
        case service if fault.kind in {"refuse", "cut", "hold", "slow", "cut_request", "lose_answer"}:
            _link(fault, victims, victims.proxies[service])
        case _:
            _server(fault, victims)


def _process(fault: Fault, victims: Victims) -> None:
    pipeline, name = victims.pipeline, fault.target
    match fault.kind:
        case "kill":
            pipeline.kill(name)
            pipeline.start(name)
        case "restart":
            pipeline.stop(name)
            pipeline.start(name)
        case "freeze":
            pipeline.signal(name, signal.SIGSTOP)
            victims.wait(fault.lasts_s)
            pipeline.signal(name, signal.SIGCONT)
        case "kill_child" | "freeze_child":
            _child(fault, victims)


def _child(fault: Fault, victims: Victims) -> None:
    # The watchdog's only child is Celery's main process, and the children of that run the tasks. The fault hits one of
    # these processes.
    family = [pid for leader in _children(victims.pipeline.pid(fault.target)) for pid in (leader, *_children(leader))]
    if not family:
        return
    child = family[int(fault.pick * len(family))]
    with suppress(ProcessLookupError):
        if fault.kind == "kill_child":
            os.kill(child, signal.SIGKILL)
            return
        os.kill(child, signal.SIGSTOP)
        victims.wait(fault.lasts_s)
        os.kill(child, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _link(fault: Fault, victims: Victims, proxy: Proxy) -> None:
    match fault.kind:
        case "refuse":
            proxy.refuse()
        case "cut":
            proxy.cut()
        case "hold":
            proxy.hold()
        case "slow":
            proxy.slow(_SLOW_S)
        case "cut_request":
            proxy.catch(Trap(Act.CUT_REQUEST, asks=_INSERT, after=int(fault.pick * 20_000), times=3))
        case "lose_answer":
            proxy.catch(Trap(Act.LOSE_ANSWER, asks=_INSERT, after=int(fault.pick * 100), times=3))
    victims.wait(fault.lasts_s)
    proxy.heal()


def _server(fault: Fault, victims: Victims) -> None:
    stack, name = victims.stack, fault.target
    match fault.kind:
        case "kill":
            stack.kill(name)
            victims.wait(fault.lasts_s / 2)
            stack.up([name])
        case "lose_all":
            with redis.Redis.from_url(stack.env()["OUTHAUL_REDIS_URL"]) as client:
                client.flushall()
        case "lose_all_and_kill":
            stack.kill(name)
            shutil.rmtree(stack.data_dir / "redis", ignore_errors=True)
            stack.up([name])
        case "end_session" | "freeze":
            pid = _walsender(victims) if name == "postgres" else stack.pid(name)
            if pid is None:
                return
            if fault.kind == "end_session":
                _sql(victims, "SELECT pg_terminate_backend(%s)", pid)
                return
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                victims.wait(fault.lasts_s)
                os.kill(pid, signal.SIGCONT)


def _walsender(victims: Victims) -> int | None:
    return _sql(victims, _WALSENDER, victims.slot)


def _sql(victims: Victims, query: str, value: object) -> int | None:
    with psycopg.connect(victims.stack.env()["OUTHAUL_POSTGRES_DSN"], autocommit=True) as conn:
        row = conn.execute(query.encode(), [value]).fetchone()
    return row[0] if row else None

"""A pipeline with nothing to do -> what it costs: share of a core, wake-ups and Redis commands a second.

Edge: /proc and Redis' own counters.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis

from tests.benchmarks.process_cost import look

if TYPE_CHECKING:
    from outhaul.deploy.demo.pipeline import Pipeline
    from tests.benchmarks.stack_with_backlog import Bed


@dataclass(frozen=True, slots=True)
class Idle:
    """Per cent of a core and wake-ups a second by process, `outhaul_cpu_percent` of reader and worker together."""

    seconds: float
    outhaul_cpu_percent: float
    cpu_percent: dict[str, float]
    wake_ups_per_s: dict[str, float]
    redis_commands_per_s: float


def rest(bed: Bed, pipeline: Pipeline, seconds: float) -> Idle:
    """Watch a pipeline that has nothing to do."""
    processes = pipeline.pids("worker") | {"reader": pipeline.pid("reader")}
    roots = bed.roots() | processes
    with redis.Redis.from_url(bed.settings.redis_url.get_secret_value()) as client:
        commands, before, started = _commands(client), look(roots), time.monotonic()
        time.sleep(seconds)
        # One of them is the question itself.
        commands, after = _commands(client) - commands - 1, look(roots)
        took_s = time.monotonic() - started
    spent_s = after.since(before)
    return Idle(
        seconds=round(took_s, 1),
        outhaul_cpu_percent=round(sum(spent_s[name] for name in processes) / took_s * 100, 2),
        cpu_percent={name: round(cpu_s / took_s * 100, 2) for name, cpu_s in spent_s.items()},
        wake_ups_per_s={
            name: round((count - before.switches[name]) / took_s, 1) for name, count in after.switches.items()
        },
        redis_commands_per_s=round(commands / took_s, 1),
    )


def _commands(client: redis.Redis) -> int:
    return int(client.info("stats")["total_commands_processed"])

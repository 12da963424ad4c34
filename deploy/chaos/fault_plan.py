"""Seed -> a sequence of faults: target, kind, duration, and the pause after each.

Pure. The same seed gives the same sequence. The speed of the machine decides how many of the faults fit into a run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Every kind of fault, by its target. After `kill` and `restart` the target starts again at once; other faults last.
KINDS: dict[str, tuple[str, ...]] = {
    "reader": ("kill", "freeze", "restart"),
    "worker": ("kill", "kill_child", "freeze", "freeze_child", "restart"),
    "redis": ("kill", "lose_all", "lose_all_and_kill", "freeze", "refuse", "cut", "hold", "slow"),
    "clickhouse": ("kill", "freeze", "refuse", "cut", "cut_request", "lose_answer", "hold", "slow"),
    "postgres": ("kill", "end_session", "freeze", "refuse", "cut", "hold", "slow"),
}

# The shortest and longest duration of a fault, in seconds. Long faults exceed the intervals of heartbeats and retries.
_LASTS_S = (0.2, 7.0)
_PAUSE_S = (0.1, 3.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `pick` in [0, 1) chooses among children or connections, times are in seconds."""

    number: int
    target: str
    kind: str
    lasts_s: float
    pause_s: float
    pick: float

    def __str__(self) -> str:
        return f"{self.target} {self.kind}"


def faults(seed: int) -> Iterator[Fault]:
    """Yield faults without end: each kind once in random order, then each kind again in another order."""
    rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
    every = [(target, kind) for target, kinds in KINDS.items() for kind in kinds]
    number = 0
    while True:
        rng.shuffle(every)
        for target, kind in every:
            yield Fault(number, target, kind, rng.uniform(*_LASTS_S), rng.uniform(*_PAUSE_S), rng.random())
            number += 1

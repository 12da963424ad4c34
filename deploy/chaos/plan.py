"""Seed -> the faults to come: which, on what, for how long, and how long to leave the pipeline alone afterwards.

Pure. The order is the same for the same seed; how much of it fits into the time given depends on the machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Every kind of fault, by what it hits. `kill` and `restart` come back at once, the others after a while.
KINDS: dict[str, tuple[str, ...]] = {
    "reader": ("kill", "freeze", "restart"),
    "worker": ("kill", "kill_child", "freeze", "freeze_child", "restart"),
    "redis": ("kill", "lose_all", "lose_all_and_kill", "freeze", "refuse", "cut", "hold", "slow"),
    "clickhouse": ("kill", "freeze", "refuse", "cut", "cut_request", "lose_answer", "hold", "slow"),
    "postgres": ("kill", "end_session", "freeze", "refuse", "cut", "hold", "slow"),
}

# Seconds that a fault lasts, at least and at most: longer than a sign of life, some longer than a reconnect.
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
    """Yield faults for ever: every kind once in random order, then all of them again in another."""
    dice = random.Random(seed)  # noqa: S311 - reproducible on purpose
    every = [(target, kind) for target, kinds in KINDS.items() for kind in kinds]
    number = 0
    while True:
        dice.shuffle(every)
        for target, kind in every:
            yield Fault(number, target, kind, dice.uniform(*_LASTS_S), dice.uniform(*_PAUSE_S), dice.random())
            number += 1

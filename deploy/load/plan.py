"""Options and a seed -> the transactions of one writer, without end.

Pure. The same seed and writer give the same events, but for the name of the run.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from outhaul import Event
from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Iterator

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_TEXT_BYTES = 1 << 20
# What a context holds beside its filling: two numbers, the run, names, brackets.
_FRAME_BYTES = 60


class Ending(Enum):
    """How a transaction ends."""

    COMMIT = "commit"
    ROLLBACK = "rollback"
    # All of it is written twice, and the first time is rolled back to a savepoint.
    SAVEPOINT = "savepoint"


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers, both ends included, and how often it is chosen among others."""

    first: int
    last: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What all writers write; shares are of 0 to 1, sizes in events, `context_bytes` in bytes."""

    sizes: tuple[Range, ...] = (Range(1, 1),)
    rollback: float = 0.0
    context_bytes: Range = Range(200, 200)
    types: int = 10
    keys: float = 0.0
    environment: str = "load"
    seed: int = 1
    # In every context, so that the events of one run are told from those of another with the same seed.
    run: str = ""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Events that belong together, and how it ends."""

    events: list[Event]
    ending: Ending


def ranges(text: str, what: str) -> tuple[Range, ...]:
    """Read `10`, `1-100`, or such with weights: `1:50,10-20:20,1000:5`.

    Raises:
        FatalError: it is none of these.
    """
    found = []
    for part in text.split(","):
        numbers, _, weight = part.partition(":")
        match = _RANGE.fullmatch(numbers.strip())
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if not 1 <= first <= last or (weight and not re.fullmatch(r"\d+(\.\d+)?", weight.strip())):
            raise FatalError(
                f"{what} {text!r} is no size, range or list of them",
                todo="Write 10, or 1-100, or with weights 1:50,10-20:20,1000:5",
                exit_code=Exit.USAGE,
            )
        found.append(Range(first, last, float(weight or 1)))
    return tuple(found)


def transactions(plan: Plan, writer: int, events: int | None = None) -> Iterator[Transaction]:
    """Yield a writer's transactions, without end or until so many events are committed by them."""
    dice = random.Random(plan.seed * 1_000_003 + writer)  # noqa: S311 - reproducible on purpose
    filling = _filling(random.Random(plan.seed))  # noqa: S311
    kinds = [f"load_{number}" for number in range(plan.types)]
    # Some kinds of events are much more frequent than others.
    weights = [1 / (number + 1) for number in range(plan.types)]
    sizes = [one.weight for one in plan.sizes]
    number, left = 0, events
    while left is None or left > 0:
        (size_range,) = dice.choices(plan.sizes, sizes)
        size = dice.randint(size_range.first, size_range.last)
        is_rolled_back = dice.random() < plan.rollback
        ending = dice.choice([Ending.ROLLBACK, Ending.SAVEPOINT]) if is_rolled_back else Ending.COMMIT
        if left is not None:
            size = min(size, left)
            left -= 0 if ending is Ending.ROLLBACK else size
        batch = []
        for kind in dice.choices(kinds, weights, k=size):
            number += 1
            length = max(0, dice.randint(plan.context_bytes.first, plan.context_bytes.last) - _FRAME_BYTES)
            at = dice.randrange(_TEXT_BYTES - length) if length < _TEXT_BYTES else 0
            context = {"run": plan.run, "writer": writer, "n": number, "text": filling[at : at + length]}
            key = f"load-{plan.seed}-{writer}-{number}" if plan.keys and dice.random() < plan.keys else None
            batch.append(Event(kind, context, environment=plan.environment, key=key))
        yield Transaction(batch, ending)


def _filling(dice: random.Random) -> str:
    """Return text that compresses about as well as that of people."""
    words = ["".join(dice.choices("etaoinshrdlu", k=dice.randint(2, 9))) for _ in range(2000)]
    text = " ".join(dice.choices(words, k=_TEXT_BYTES // 5))
    return text[:_TEXT_BYTES]

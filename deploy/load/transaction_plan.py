"""Options and a seed -> the transactions of one writer, without end.

Pure. The same seed and writer give the same events, except for the name of the run.
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
# The size of a context without its text: two numbers, the name of the run, the members' names, brackets.
_FRAME_BYTES = 60


class Ending(Enum):
    """How a transaction ends."""

    COMMIT = "commit"
    ROLLBACK = "rollback"
    # All events are written twice; the first time is rolled back to a savepoint.
    SAVEPOINT = "savepoint"


@dataclass(frozen=True, slots=True)
class Range:
    """A range of integers, both ends included, and its weight among other ranges."""

    first: int
    last: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What all writers write.

    `sizes` are of transactions, in events; `context_bytes` is in bytes; `rollback` and `keys` are shares from 0 to 1.
    """

    sizes: tuple[Range, ...] = (Range(1, 1),)
    rollback: float = 0.0
    context_bytes: Range = Range(200, 200)
    types: int = 10
    keys: float = 0.0
    environment: str = "load"
    seed: int = 1
    # The name of the run is in each context, to distinguish runs with the same seed.
    run: str = ""


@dataclass(frozen=True, slots=True)
class Transaction:
    """The events of one transaction, and how it ends."""

    events: list[Event]
    ending: Ending


def ranges(text: str, option: str) -> tuple[Range, ...]:
    """Parse `10`, `1-100`, or a list with weights such as `1:50,10-20:20,1000:5`; `option` is for the error message.

    Raises:
        FatalError: the text has another form.
    """
    found = []
    for part in text.split(","):
        numbers, _, weight = part.partition(":")
        match = _RANGE.fullmatch(numbers.strip())
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if not 1 <= first <= last or (weight and not re.fullmatch(r"\d+(\.\d+)?", weight.strip())):
            raise FatalError(
                f"{option} {text!r} is not a size, a range or a list of these",
                todo="Write 10, or 1-100, or a list with weights: 1:50,10-20:20,1000:5",
                exit_code=Exit.USAGE,
            )
        found.append(Range(first, last, float(weight or 1)))
    return tuple(found)


def transactions(plan: Plan, writer: int, events: int | None = None) -> Iterator[Transaction]:
    """Yield the transactions of a writer: without end, or until `events` events are committed."""
    rng = random.Random(plan.seed * 1_000_003 + writer)  # noqa: S311 - reproducible on purpose
    text = _text(random.Random(plan.seed))  # noqa: S311
    kinds = [f"load_{number}" for number in range(plan.types)]
    # As in apps, some types of events are much more frequent than others.
    weights = [1 / (number + 1) for number in range(plan.types)]
    sizes = [one.weight for one in plan.sizes]
    number, left = 0, events
    while left is None or left > 0:
        (size_range,) = rng.choices(plan.sizes, sizes)
        size = rng.randint(size_range.first, size_range.last)
        is_rolled_back = rng.random() < plan.rollback
        ending = rng.choice([Ending.ROLLBACK, Ending.SAVEPOINT]) if is_rolled_back else Ending.COMMIT
        if left is not None:
            size = min(size, left)
            left -= 0 if ending is Ending.ROLLBACK else size
        batch = []
        for kind in rng.choices(kinds, weights, k=size):
            number += 1
            length = max(0, rng.randint(plan.context_bytes.first, plan.context_bytes.last) - _FRAME_BYTES)
            at = rng.randrange(_TEXT_BYTES - length) if length < _TEXT_BYTES else 0
            context = {"run": plan.run, "writer": writer, "n": number, "text": text[at : at + length]}
            key = f"load-{plan.seed}-{writer}-{number}" if plan.keys and rng.random() < plan.keys else None
            batch.append(Event(kind, context, environment=plan.environment, key=key))
        yield Transaction(batch, ending)


def _text(rng: random.Random) -> str:
    """Return text of random words, which compresses about as well as natural language."""
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(2000)]
    text = " ".join(rng.choices(words, k=_TEXT_BYTES // 5))
    return text[:_TEXT_BYTES]

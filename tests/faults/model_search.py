"""Model and scope -> every state that can be reached, or the shortest way to one that must not be.

Pure but for the clock that times it. Breadth first, so the first trace found is a shortest one. In every state the
invariants must hold; and from every state, when nothing fails any more, the pipeline must come to its end with every
row stored once, even if no worker that has begun a task ever wakes up again.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Far more steps than any run without faults needs in these scopes; a run that takes more goes round in circles.
_PATIENCE = 500


class Named(Protocol):
    """What happens, as a model has it."""

    @property
    def name(self) -> str:
        """Its name in traces."""

    @property
    def choice(self) -> int:
        """How it happens, where there are several ways."""


Scope = TypeVar("Scope")
State = TypeVar("State")
Action = TypeVar("Action", bound=Named)


@dataclass(frozen=True, slots=True)
class Model(Generic[Scope, State, Action]):
    """The functions that a model is made of.

    `actions` offers what can happen next; `fair` the same without faults, and without what only patience brings about.
    `calm` returns the states from which the fair runs of a state begin. `rank` has the names of the actions of a fair
    run: of several that are offered, the one with the lowest rank happens.
    """

    first: Callable[[Scope], State]
    actions: Callable[[Scope, State], Iterable[Action]]
    fair: Callable[[Scope, State], Iterable[Action]]
    step: Callable[[Scope, State, Action], State]
    describe: Callable[[State, Action], str]
    broken: Callable[[Scope, State], str | None]
    done: Callable[[Scope, State], bool]
    calm: Callable[[State], tuple[State, ...]]
    rank: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search saw, and its CPU time.

    `trouble` names the first invariant that does not hold, `trace` leads there.
    """

    states: int
    seconds: float
    trouble: str | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.states} states in {self.seconds:.1f} s: {self.trouble or 'all invariants hold'}"]
        return "\n".join([*lines, *(f"{n:4} {line}" for n, line in enumerate(self.trace, 1))])


def explore(model: Model[Scope, State, Action], scope: Scope) -> Found:
    """Visit every state of a scope, and stop at the first that breaks an invariant; then run on from each."""
    # Nothing here is cyclic, and the collector would look at every state again and again.
    gc.disable()
    try:
        return _explore(model, scope)
    finally:
        gc.enable()


def _explore(model: Model[Scope, State, Action], scope: Scope) -> Found:
    begun = time.process_time()
    start = model.first(scope)
    came_by: dict[State, tuple[State, Action] | None] = {start: None}
    frontier = [start]
    actions, step, broken = model.actions, model.step, model.broken
    while frontier:
        ahead: list[State] = []
        for state in frontier:
            for action in actions(scope, state):
                after = step(scope, state, action)
                if after in came_by:
                    continue
                came_by[after] = (state, action)
                trouble = broken(scope, after)
                if trouble:
                    return Found(len(came_by), time.process_time() - begun, trouble, _trace(model, came_by, after))
                ahead.append(after)
        frontier = ahead
    runs = FairRuns(model, scope)
    for state in came_by:
        trouble = runs.trouble(state)
        if trouble:
            trace = (*_trace(model, came_by, state), *runs.way)
            return Found(len(came_by), time.process_time() - begun, trouble, trace)
    return Found(len(came_by), time.process_time() - begun)


class FairRuns(Generic[Scope, State, Action]):
    """Runs in which nothing fails any more; remembers which states they end well from."""

    def __init__(self, model: Model[Scope, State, Action], scope: Scope) -> None:
        """Remember nothing yet."""
        self.way: list[str] = []
        self._model = model
        self._scope = scope
        self._fine: set[State] = set()

    def trouble(self, state: State) -> str | None:
        """Say what goes wrong; None when all fair runs from here end well."""
        return next((trouble for calm in self._model.calm(state) if (trouble := self._run(calm))), None)

    def _run(self, state: State) -> str | None:
        model, scope, self.way, seen = self._model, self._scope, ["-- nothing fails from here on"], []
        while state not in self._fine:
            seen.append(state)
            trouble = model.broken(scope, state)
            if trouble or len(seen) > _PATIENCE:
                return trouble or "it goes round in circles"
            if model.done(scope, state):
                break
            action = min(model.fair(scope, state), key=self._urgency, default=None)
            if action is None:
                return "it stands still"
            self.way.append(model.describe(state, action))
            state = model.step(scope, state, action)
        self._fine.update(seen)
        return None

    def _urgency(self, action: Action) -> tuple[int, int]:
        return self._model.rank[action.name], -action.choice


def _trace(
    model: Model[Scope, State, Action], came_by: dict[State, tuple[State, Action] | None], state: State
) -> tuple[str, ...]:
    lines: list[str] = []
    while (back := came_by[state]) is not None:
        state, action = back
        lines.append(model.describe(state, action))
    return tuple(reversed(lines))

"""Scope -> every state that can be reached, or the shortest way to one that must not be.

Pure but for the clock that times it. Breadth first, so the first trace found is a shortest one. In every state the
invariants must hold; and from every state, when nothing fails any more, the pipeline must come to its end with every
row stored once, even if no worker that has begun a task ever wakes up again.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.model_actions import Action, actions, describe
from tests.faults.model_design import Left
from tests.faults.model_state import State, broken, done, first
from tests.faults.model_steps import step

if TYPE_CHECKING:
    from tests.faults.model_design import Scope

# Far more steps than any run without faults needs in these scopes; a run that takes more goes round in circles.
_PATIENCE = 500

# A fair run: what goes on by itself goes on first, and what only patience brings about comes last.
_ORDER = (
    "end, begin, land, list, tell, hear, feedback, deliver, arm, raise, read back, settle, ask, push, cut, open, again"
)
_RANK = {name: rank for rank, name in enumerate(_ORDER.split(", "))}


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


def explore(scope: Scope) -> Found:
    """Visit every state of a scope, and stop at the first that breaks an invariant; then run on from each."""
    # Nothing here is cyclic, and the collector would look at every state again and again.
    gc.disable()
    try:
        return _explore(scope)
    finally:
        gc.enable()


def _explore(scope: Scope) -> Found:
    begun = time.process_time()
    start = first(scope)
    came_by: dict[State, tuple[State, Action] | None] = {start: None}
    frontier = [start]
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
                    return Found(len(came_by), time.process_time() - begun, trouble, _trace(came_by, after))
                ahead.append(after)
        frontier = ahead
    runs = FairRuns(scope)
    for state in came_by:
        trouble = runs.trouble(state)
        if trouble:
            trace = (*_trace(came_by, state), *runs.way)
            return Found(len(came_by), time.process_time() - begun, trouble, trace)
    return Found(len(came_by), time.process_time() - begun)


class FairRuns:
    """Runs in which nothing fails any more; remembers which states they end well from."""

    def __init__(self, scope: Scope) -> None:
        """Remember nothing yet."""
        self.way: list[str] = []
        self._scope = scope
        self._fine: set[State] = set()

    def trouble(self, state: State) -> str | None:
        """Say what goes wrong, with the workers there are or with new ones only; None when both end well."""
        calm = state._replace(left=Left(), copy=None)
        return self._run(calm) or self._run(_all_asleep(calm))

    def _run(self, state: State) -> str | None:
        scope, self.way, seen = self._scope, ["-- nothing fails from here on"], []
        while state not in self._fine:
            seen.append(state)
            trouble = broken(scope, state)
            if trouble or len(seen) > _PATIENCE:
                return trouble or "it goes round in circles"
            if done(scope, state):
                break
            action = min(actions(scope, state, faultless=True), key=_urgency, default=None)
            if action is None:
                return "it stands still"
            self.way.append(describe(state, action))
            state = step(scope, state, action)
        self._fine.update(seen)
        return None


def _all_asleep(state: State) -> State:
    going_on = (task.insert for task in state.tasks if task.insert.stage in {"unlisted", "listed", "running"})
    return state._replace(tasks=(), orphans=tuple(sorted((*state.orphans, *going_on))))


def _urgency(action: Action) -> tuple[int, int]:
    return _RANK[action.name], -action.choice


def _trace(came_by: dict[State, tuple[State, Action] | None], state: State) -> tuple[str, ...]:
    lines: list[str] = []
    while (back := came_by[state]) is not None:
        state, action = back
        lines.append(describe(state, action))
    return tuple(reversed(lines))

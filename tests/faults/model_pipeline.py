"""The model of reader, Redis, workers and one ClickHouse server, as the search takes it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.model_actions import actions, describe
from tests.faults.model_design import Left
from tests.faults.model_search import Model
from tests.faults.model_state import broken, done, first
from tests.faults.model_steps import step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.model_actions import Action
    from tests.faults.model_design import Scope
    from tests.faults.model_state import State

_ORDER = (
    "end, begin, land, list, tell, hear, feedback, deliver, arm, raise, read back, settle, push, ask, cut, open, again"
)


def _fair(scope: Scope, state: State) -> Iterator[Action]:
    return actions(scope, state, faultless=True)


def _calm(state: State) -> tuple[State, ...]:
    """Return the state without faults to come: with the workers there are, and with new ones only."""
    calm = state._replace(left=Left(), copy=None)
    running = (task.insert for task in calm.tasks if task.insert.stage in {"unlisted", "listed", "running"})
    return calm, calm._replace(tasks=(), orphans=tuple(sorted((*calm.orphans, *running))))


PIPELINE = Model(
    first=first,
    actions=actions,
    fair=_fair,
    step=step,
    describe=describe,
    broken=broken,
    done=done,
    calm=_calm,
    rank={name: rank for rank, name in enumerate(_ORDER.split(", "))},
)

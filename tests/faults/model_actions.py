"""State -> everything that can happen next, and each of these in words.

Pure. Faults and whatever needs no cause, such as the end of patience, are offered as often as the scope says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.faults.model_state import ENDED, LISTED, NOBODY, VIEW, names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.faults.model_design import Scope
    from tests.faults.model_state import Batch, Insert, Redis, State


class Action(NamedTuple):
    """What happens; `at` says to which of several, `choice` how."""

    name: str
    at: int = 0
    choice: int = 0


def actions(scope: Scope, state: State, *, faultless: bool = False) -> Iterator[Action]:
    """Offer everything that can happen; `faultless` offers no faults, and no end of patience and sessions."""
    yield from _of_readers(scope, state, faultless)
    yield from _of_redis(state, faultless)
    yield from _of_clickhouse(scope, state, faultless)
    if not faultless:
        yield from (Action("arm late", owner) for owner in state.late)
    if state.slot == NOBODY and (faultless or state.opened < scope.sessions):
        yield Action("open")


def _of_readers(scope: Scope, state: State, faultless: bool) -> Iterator[Action]:
    for i, reader in enumerate(state.readers):
        owns = reader.owner == state.slot
        if owns and not faultless and state.opened < scope.sessions:
            yield Action("lose slot", i)
            if state.left.setbacks and state.confirmed:
                yield Action("lose slot and position", i)
        if faultless and not owns:
            yield Action("end", i)
        if reader.step == "stream":
            yield from _of_stream(scope, state, i, faultless)
        elif reader.step == "arm":
            yield Action("arm", i)
            if state.left.late_arms and not faultless:
                yield Action("arm", i, 1)
        elif reader.sent:
            continue
        elif reader.step != "settle" or not scope.design.settle or not _running(state):
            yield Action(reader.step, i)


def _of_stream(scope: Scope, state: State, i: int, faultless: bool) -> Iterator[Action]:
    reader = state.readers[i]
    if reader.owner == state.slot and reader.flush > state.confirmed:
        yield Action("feedback", i)
    if len(reader.pieces) < scope.in_flight:
        left = scope.rows - reader.next
        for size in {min(size, left) for size in scope.pieces} - {0}:
            yield Action("cut", i, size)
    if scope.design.sends_again and (faultless or state.left.doubts):
        for n, piece in enumerate(reader.pieces):
            if piece.rows:
                yield Action("again", i, n)
    for n, report in enumerate(state.reports):
        if report.epoch == reader.epoch and (report.outcome != "missing" or faultless or state.left.doubts):
            yield Action("hear", i, n)


def _of_redis(state: State, faultless: bool) -> Iterator[Action]:
    for i in _different(state.queue):
        yield Action("deliver", i)
        if not faultless and state.left.repeats:
            yield Action("deliver twice", i)
    if faultless:
        return
    if state.left.losses and (state.queue or state.payloads or state.reports):
        yield Action("lose redis")
    if state.left.copies and state.queue:
        yield Action("save redis")
    if state.copy and state.copy != redis(state):
        yield Action("restore redis")


def _of_clickhouse(scope: Scope, state: State, faultless: bool) -> Iterator[Action]:
    found = inserts(state)
    for i in _different_inserts(state):
        insert = found[i]
        if insert.stage in ENDED:
            yield Action("tell", i)
        elif insert.stage == "running":
            yield from (Action("land", i, n) for n in next_parts(scope, insert))
        else:
            yield Action("list" if insert.stage == "sent" else "begin", i)
        if not faultless:
            yield from _faults_of(scope, state, i, insert)
    if faultless:
        return
    if state.left.forgets and forgotten(scope, state):
        yield Action("forget")
    if state.left.crashes and (state.memory or any(insert.stage in LISTED for insert in found)):
        yield Action("crash", -1)


def _faults_of(scope: Scope, state: State, i: int, insert: Insert) -> Iterator[Action]:
    left = state.left
    if left.breaks and insert.stage in LISTED:
        yield Action("break", i)
    if left.refusals and insert.stage == "running" and insert.views and not insert.left:
        yield Action("view refuses", i)
    if insert.stage == "running" and (left.crashes or left.tears):
        for n in next_parts(scope, insert):
            if n > VIEW or scope.tears_views:
                yield from (
                    Action(name, i, n) for name, times in (("crash", left.crashes), ("tear", left.tears)) if times
                )
    if left.drops and i < len(state.tasks) and insert.stage != "sent":
        yield Action("answer lost", i)
        if not state.tasks[i].resent:
            yield Action("send hidden", i)


def describe(state: State, action: Action) -> str:
    """Say what the action does in this state, for a trace."""
    index, choice = action.at, action.choice
    match action.name:
        case "open" | "lose redis" | "save redis" | "restore redis" | "forget":
            return action.name
        case "arm late":
            return f"{action.name}: owner {index}"
        case "crash" if index < 0:
            return action.name
        case "deliver" | "deliver twice":
            message = state.queue[index]
            return f"{action.name}: batch {names(message.rows)} of epoch {message.epoch}"
        case (
            "list"
            | "begin"
            | "land"
            | "break"
            | "view refuses"
            | "crash"
            | "tear"
            | "tell"
            | "answer lost"
            | "send hidden"
        ):
            insert = inserts(state)[index]
            what = f"{insert.mode} insert of {names(insert.rows)} by owner {insert.owner}, {insert.stage}"
            if action.name not in {"land", "crash", "tear"}:
                return f"{action.name}: {what}"
            where = f"partition {choice}" if choice >= 0 else f"view {VIEW - choice}"
            return f"{action.name}: {what}, {where}" + (" has the token only" if action.name != "land" else "")
        case _:
            reader = state.readers[index]
            what = f"{action.name}: owner {reader.owner}, epoch {reader.epoch}"
            match action.name:
                case "cut":
                    return f"{what}, {choice} rows from row {reader.next}"
                case "again":
                    return f"{what}, batch {names(reader.pieces[choice].rows)}"
                case "hear":
                    report = state.reports[choice]
                    return f"{what}, {report.outcome} {names(report.rows)}"
            return what


def forgotten(scope: Scope, state: State) -> frozenset[tuple[Batch, int]]:
    """Return the tokens that the window may forget."""
    if not scope.design.window_outlasts_inserts:
        return state.tokens
    kept = {insert.batch for insert in inserts(state) if insert.stage in LISTED}
    return frozenset(token for token in state.tokens if token[0] not in kept)


def inserts(state: State) -> tuple[Insert, ...]:
    """Return all inserts: those of tasks, in their order, those that nobody waits for, and those of readers."""
    of_readers = (reader.sent for reader in state.readers if reader.sent)
    return (*(task.insert for task in state.tasks), *state.orphans, *of_readers)


def next_parts(scope: Scope, insert: Insert) -> Iterator[int]:
    """Return the parts of a running insert that may be next: partitions, or views."""
    for n, partition in enumerate(scope.partitions):
        if insert.left & partition:
            yield n
    if not insert.left or not scope.design.table_first:
        yield from (VIEW - view for view in insert.views)


def redis(state: State) -> Redis:
    """Return what would be in a copy of Redis."""
    return state.queue, state.payloads, state.reports


def _running(state: State) -> bool:
    return any(insert.stage in LISTED for insert in inserts(state))


def _different_inserts(state: State) -> Iterator[int]:
    yield from _different((*state.tasks, *state.orphans))
    alone = len(state.tasks) + len(state.orphans)
    yield from range(alone, len(inserts(state)))


def _different(items: Iterable[object]) -> Iterator[int]:
    """Number the items that are not like the one before: what can happen to it can happen to this one."""
    before: object = None
    for i, item in enumerate(items):
        if item != before:
            yield i
        before = item

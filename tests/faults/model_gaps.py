"""The model of a view that refuses rows: workers that note it, the reader that fills what is noted, and a user.

Pure. The table has one batch of two rows and takes nothing more, so it is not here. View 0 refuses some of the rows
until the user mends it; view 1 takes everything. A statement that sends the batch reaches one view after the other.
The reader fills in one thread, and only the newest reader may; so there is one here, which may die and begin again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.faults.model_search import Model
from tests.faults.model_state import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 0b11
REFUSING, OTHER = 0, 1

# Tokens of what the reader inserts into the view's target itself: the batch without the refused rows, and these.
_REST, _REFUSED = 10, 11


@dataclass(frozen=True, slots=True)
class Design:
    """What the code does; every field that is not as by default is a mutation."""

    # A statement that sends the batch is refused if the batch is noted.
    refuses_noted: bool = True
    # The reader waits until the statements have ended that began before the batch was noted.
    settles: bool = True
    # If the view refuses nothing any more, the reader sends the batch under its own token: the view may have it.
    sends_under_token: bool = True
    # Refused rows are noted one by one before the rest is filled; and the rest is what is not noted.
    notes_rows_first: bool = True
    leaves_out_noted: bool = True
    # What the reader inserts itself has a token.
    token: bool = True
    # A worker that a view has refused sends the batch to the other views before it notes it.
    sends_to_others: bool = True


class Left(NamedTuple):
    """How often a worker may begin, and a worker or the reader may die."""

    tasks: int = 1
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows the view refuses, how much happens, and the design."""

    refused: int = 0b10
    left: Left = field(default_factory=Left)
    design: Design = field(default_factory=Design)


class Statement(NamedTuple):
    """An INSERT that sends the batch to the views on the table.

    Its stages are sent, running, and at its end ok, refused and noted. `ignores`: a view that raises costs it alone.
    """

    stage: str = "sent"
    views: tuple[int, ...] = ()
    ignores: bool = False


class State(NamedTuple):
    """Everything there is, at one moment."""

    left: Left
    is_mended: bool = False
    # What each view has, whether a row was stored twice, and which tokens the targets know: a view's number for the
    # batch's own token.
    views: tuple[int, ...] = (0, 0)
    is_twice: bool = False
    tokens: frozenset[int] = frozenset()
    # What is noted as lacking in the refusing view: the whole batch, single rows; and what of it is filled.
    is_noted: bool = False
    is_filled: bool = False
    rows_noted: int = 0
    rows_filled: int = 0
    is_stored: bool = False  # a worker has reported the batch
    tasks: tuple[Statement, ...] = ()
    orphans: tuple[Statement, ...] = ()
    filler: str = ""  # what the reader does next: "", send, look, fill, note
    sent: Statement | None = None  # what the reader waits for


class Action(NamedTuple):
    """What happens; `at` says to which of several, `choice` to which view."""

    name: str
    at: int = 0
    choice: int = 0


def first(scope: Scope) -> State:
    """Return the state in which the table has the batch, and no view has."""
    return State(scope.left)


def broken(_scope: Scope, state: State) -> str | None:
    """Name the invariant that does not hold; None when all do."""
    if state.is_twice:
        return "a view has rows twice"
    if not state.is_stored:
        return None
    if lost := BATCH & ~state.views[OTHER]:
        return f"the other view lacks rows {names(lost)}"
    open_rows = BATCH if state.is_noted and not state.is_filled else state.rows_noted & ~state.rows_filled
    if lost := BATCH & ~state.views[REFUSING] & ~open_rows:
        return f"the view lacks rows {names(lost)}, and they are not noted"
    return None


def done(_scope: Scope, state: State) -> bool:
    """Tell whether both views have everything, and nothing is noted any more."""
    is_open = (state.is_noted and not state.is_filled) or state.rows_noted & ~state.rows_filled
    return state.is_stored and not is_open and state.views == (BATCH, BATCH)


def actions(scope: Scope, state: State) -> Iterator[Action]:
    """Offer everything that can happen."""
    yield from fair(scope, state)
    if state.left.deaths:
        yield from (Action("worker dies", i) for i in range(len(state.tasks)))
        if state.filler:
            yield Action("reader dies")


def fair(scope: Scope, state: State) -> Iterator[Action]:
    """Offer what goes on without deaths; the user mends the view in the end."""
    if state.left.tasks:
        yield Action("begin task")
    if not state.is_mended:
        yield Action("mend")
    for i, statement in enumerate(_statements(state)):
        match statement.stage:
            case "sent":
                yield Action("begin", i)
            case "running":
                yield from (Action("reach view", i, view) for view in statement.views)
            case _:
                yield Action("tell", i)
    if state.sent is None:
        yield from _of_filler(scope, state)


def _of_filler(scope: Scope, state: State) -> Iterator[Action]:
    is_running = any(statement.stage == "running" for statement in _statements(state))
    if state.filler:
        yield Action(f"filler: {state.filler}")
    elif state.is_noted and not state.is_filled and not (is_running and scope.design.settles):
        yield Action("filler: look")
    elif state.rows_noted & ~state.rows_filled and state.is_mended:
        yield Action("filler: fill rows")


def _statements(state: State) -> tuple[Statement, ...]:
    return (*state.tasks, *state.orphans, *((state.sent,) if state.sent else ()))


def describe(state: State, action: Action) -> str:
    """Say what the action does in this state, for a trace."""
    if action.name not in {"begin", "reach view", "tell", "worker dies"}:
        return action.name
    statement = _statements(state)[action.at]
    who = "reader's" if action.at == len(state.tasks) + len(state.orphans) else "worker's"
    where = f" {action.choice}" if action.name == "reach view" else ""
    return f"{action.name}{where}: {who} {'ignoring ' if statement.ignores else ''}statement, {statement.stage}"


def step(scope: Scope, state: State, action: Action) -> State:
    """Return the state after an action that `actions` has offered."""
    return STEPS[action.name](scope, state, action.at, action.choice)


def _begin_task(_scope: Scope, state: State, _at: int, _view: int) -> State:
    return _send(state._replace(left=state.left._replace(tasks=state.left.tasks - 1)), Statement())


def _mend(_scope: Scope, state: State, _at: int, _view: int) -> State:
    return state._replace(is_mended=True)


def _begin(scope: Scope, state: State, at: int, _view: int) -> State:
    is_of_reader = at == len(state.tasks) + len(state.orphans)
    if state.is_noted and scope.design.refuses_noted and not is_of_reader:
        return _with_statement(state, at, Statement("noted"))
    return _with_statement(state, at, _statements(state)[at]._replace(stage="running", views=(REFUSING, OTHER)))


def _reach_view(scope: Scope, state: State, at: int, view: int) -> State:
    statement = _statements(state)[at]
    views = tuple(one for one in statement.views if one != view)
    if view == REFUSING and scope.refused and not state.is_mended:
        if not statement.ignores:
            return _with_statement(state, at, Statement("refused"))
    elif view not in state.tokens:
        state = _store(state._replace(tokens=state.tokens | {view}), view, BATCH)
    return _with_statement(
        state, at, statement._replace(views=views) if views else Statement("ok", (), statement.ignores)
    )


def _store(state: State, view: int, rows: int) -> State:
    views = tuple(has | rows if one == view else has for one, has in enumerate(state.views))
    return state._replace(views=views, is_twice=state.is_twice or bool(state.views[view] & rows))


def _tell(scope: Scope, state: State, at: int, _view: int) -> State:
    if at == len(state.tasks) + len(state.orphans):
        return _tell_reader(state)
    statement = state.tasks[at]
    state = state._replace(tasks=(*state.tasks[:at], *state.tasks[at + 1 :]))
    match statement:
        case Statement("refused") if scope.design.sends_to_others:
            return _send(state, Statement(ignores=True))
        case Statement("ok", ignores=True) if state.is_mended:
            # The view's query raises no error any more.
            return _send(state, Statement())
        case Statement("refused") | Statement("ok", ignores=True):
            return state._replace(is_noted=True, is_stored=True)
    return state._replace(is_stored=True)


def _tell_reader(state: State) -> State:
    is_ok = state.sent is not None and state.sent.stage == "ok"
    return state._replace(sent=None, filler="note" if is_ok else "look")


def _filler_sends(_scope: Scope, state: State, _at: int, _view: int) -> State:
    return state._replace(sent=Statement())


def _filler_looks(scope: Scope, state: State, _at: int, _view: int) -> State:
    refused = 0 if state.is_mended else scope.refused
    if refused == BATCH:
        return state._replace(filler="")
    if state.rows_noted or not scope.design.notes_rows_first:
        # The rest may have been filled already, under a token of its own.
        return state._replace(filler="fill")
    if not refused and scope.design.sends_under_token:
        return state._replace(filler="send")
    return state._replace(filler="fill", rows_noted=refused)


def _filler_fills(scope: Scope, state: State, _at: int, _view: int) -> State:
    refused = 0 if state.is_mended else scope.refused
    rest = BATCH & ~(state.rows_noted if scope.design.leaves_out_noted and state.rows_noted else refused)
    if _REST not in state.tokens or not scope.design.token:
        state = _store(state._replace(tokens=state.tokens | {_REST}), REFUSING, rest)
    if not scope.design.notes_rows_first and not state.rows_noted:
        state = state._replace(rows_noted=refused)
    return state._replace(filler="note")


def _filler_notes(_scope: Scope, state: State, _at: int, _view: int) -> State:
    return state._replace(is_filled=True, filler="")


def _filler_fills_rows(scope: Scope, state: State, _at: int, _view: int) -> State:
    if _REFUSED not in state.tokens or not scope.design.token:
        state = _store(state._replace(tokens=state.tokens | {_REFUSED}), REFUSING, state.rows_noted)
    return state._replace(filler="note rows")


def _filler_notes_rows(_scope: Scope, state: State, _at: int, _view: int) -> State:
    return state._replace(rows_filled=state.rows_noted, filler="")


def _worker_dies(_scope: Scope, state: State, at: int, _view: int) -> State:
    statement, left = state.tasks[at], state.left
    state = state._replace(tasks=(*state.tasks[:at], *state.tasks[at + 1 :]))
    # Its message is delivered again.
    left = left._replace(deaths=left.deaths - 1, tasks=left.tasks + 1)
    return _orphan(state._replace(left=left), statement)


def _reader_dies(_scope: Scope, state: State, _at: int, _view: int) -> State:
    left, sent = state.left._replace(deaths=state.left.deaths - 1), state.sent
    state = state._replace(left=left, filler="", sent=None)
    # The next reader fences what has not begun.
    return _orphan(state, sent) if sent and sent.stage == "running" else state


def _orphan(state: State, statement: Statement) -> State:
    if statement.stage not in {"sent", "running"}:
        return state
    return state._replace(orphans=tuple(sorted((*state.orphans, statement))))


def _send(state: State, statement: Statement) -> State:
    return state._replace(tasks=tuple(sorted((*state.tasks, statement))))


def _with_statement(state: State, at: int, statement: Statement) -> State:
    if at < len(state.tasks):
        return state._replace(tasks=tuple(sorted((*state.tasks[:at], statement, *state.tasks[at + 1 :]))))
    at -= len(state.tasks)
    if at == len(state.orphans):
        return state._replace(sent=statement)
    return _orphan(state._replace(orphans=(*state.orphans[:at], *state.orphans[at + 1 :])), statement)


def _calm(state: State) -> tuple[State, ...]:
    return (state._replace(left=state.left._replace(tasks=max(1, state.left.tasks), deaths=0)),)


STEPS: dict[str, Callable[[Scope, State, int, int], State]] = {
    "begin task": _begin_task,
    "mend": _mend,
    "begin": _begin,
    "reach view": _reach_view,
    "tell": _tell,
    "filler: send": _filler_sends,
    "filler: look": _filler_looks,
    "filler: fill": _filler_fills,
    "filler: note": _filler_notes,
    "filler: fill rows": _filler_fills_rows,
    "filler: note rows": _filler_notes_rows,
    "worker dies": _worker_dies,
    "reader dies": _reader_dies,
}

_ORDER = "begin, reach view, tell, begin task, mend"

GAPS = Model(
    first=first,
    actions=actions,
    fair=fair,
    step=step,
    describe=describe,
    broken=broken,
    done=done,
    calm=_calm,
    rank={name: rank for rank, name in enumerate((*_ORDER.split(", "), *(n for n in STEPS if n.startswith("filler"))))},
)

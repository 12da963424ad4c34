"""State and what happens in ClickHouse -> the state after it; and what the fence refuses from then on.

Pure. An insert is listed, begins (asks for owner, Memory table and positions), and lands part by part: the partitions
of the table, then the views. ClickHouse may end it between any two of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults.model_actions import forgotten, inserts
from tests.faults.model_state import ENDED, LISTED, VIEW, Report, stored_by

if TYPE_CHECKING:
    from tests.faults.model_design import Scope
    from tests.faults.model_state import Batch, Insert, Reader, State


def arm_late(scope: Scope, state: State, owner: int, _choice: int) -> State:
    """Let the second copy of a reader's row arrive in the Memory table; refused if its epoch is raised."""
    return refuse(scope, state._replace(late=state.late - {owner}, memory=state.memory | {owner}))


def list_insert(scope: Scope, state: State, index: int, _choice: int) -> State:
    """Put an insert among the running queries."""
    insert = inserts(state)[index]
    if scope.design.listed_first:
        return with_insert(state, index, insert._replace(stage="listed"))
    fenced = _is_fenced(scope, insert) and not _is_owner(scope, state, insert.owner)
    return with_insert(state, index, insert._replace(stage="refused" if fenced else "unlisted"))


def begin(scope: Scope, state: State, index: int, _choice: int) -> State:
    """Ask for owner and positions."""
    insert = inserts(state)[index]
    if insert.stage == "listed" and _is_fenced(scope, insert) and not _is_owner(scope, state, insert.owner):
        return with_insert(state, index, insert._replace(stage="refused"))
    match insert.mode:
        case "push" if scope.design.minds_others and insert.rows & state.stored & ~stored_by(state, insert.batch):
            return with_insert(state, index, insert._replace(stage="refused"))
        case "first":
            return with_insert(state, index, _begin_first(scope, state, insert))
        case "push" | "copy" if scope.design.guarded == "in statement" and is_forgotten(scope, state, insert.batch):
            return with_insert(state, index, insert._replace(stage="unsure"))
    return with_insert(state, index, _running(scope, insert, insert.rows))


def _begin_first(scope: Scope, state: State, insert: Insert) -> Insert:
    stored = insert.rows & state.stored
    match scope.design.stored_rows:
        case "tell" if stored:
            return insert._replace(stage="told")
        case "leave out":
            return _running(scope, insert, insert.rows & ~stored)
    return _running(scope, insert, insert.rows)


def _running(scope: Scope, insert: Insert, rows: int) -> Insert:
    if not rows:
        return insert._replace(stage="stored")
    return insert._replace(stage="running", rows=rows, left=rows, views=tuple(range(scope.views)))


def is_forgotten(scope: Scope, state: State, batch: Batch) -> bool:
    """Tell whether a part of the batch is there whose token is not.

    The code counts the parts that came after the batch's, and so may take a token for forgotten that is not.
    """
    stored = stored_by(state, batch)
    return any(
        (batch, n) not in state.tokens for n, partition in enumerate(scope.partitions) if stored & partition
    ) or any(viewed & stored and (batch, VIEW - n) not in state.tokens for n, viewed in enumerate(state.viewed))


def land(scope: Scope, state: State, index: int, number: int) -> State:
    """Put one part in place, unless its token is known."""
    insert = inserts(state)[index]
    token = (insert.batch, number)
    if number <= VIEW:
        view = VIEW - number
        if token not in state.tokens or not scope.design.view_token:
            state = _into_view(state, view, insert.rows)
        insert = insert._replace(views=tuple(one for one in insert.views if one != view))
    else:
        part = insert.left & scope.partitions[number]
        if token not in state.tokens or not scope.design.token:
            state = _into_table(state, insert.batch, part)
        insert = insert._replace(left=insert.left & ~part)
    state = state._replace(tokens=state.tokens | {token})
    stage = "running" if insert.left or insert.views else "stored"
    return with_insert(state, index, insert._replace(stage=stage))


def _into_table(state: State, batch: Batch, rows: int) -> State:
    others = (pair for pair in state.batches if pair[0] != batch)
    batches = tuple(sorted((*others, (batch, stored_by(state, batch) | rows))))
    return state._replace(stored=state.stored | rows, doubled=state.doubled | state.stored & rows, batches=batches)


def _into_view(state: State, view: int, rows: int) -> State:
    viewed = state.viewed[view]
    views = (*state.viewed[:view], viewed | rows, *state.viewed[view + 1 :])
    return state._replace(viewed=views, doubled=state.doubled | viewed & rows)


def tear(_scope: Scope, state: State, index: int, number: int) -> State:
    """End an insert that has noted the token of its next part."""
    insert = inserts(state)[index]
    left = state.left._replace(tears=state.left.tears - 1)
    state = state._replace(tokens=state.tokens | {(insert.batch, number)}, left=left)
    return with_insert(state, index, insert._replace(stage="failed"))


def break_insert(_scope: Scope, state: State, index: int, _choice: int) -> State:
    """End an insert between two parts."""
    state = state._replace(left=state.left._replace(breaks=state.left.breaks - 1))
    return with_insert(state, index, inserts(state)[index]._replace(stage="failed"))


def refuse_in_view(_scope: Scope, state: State, index: int, _choice: int) -> State:
    """End an insert whose rows the table has taken and a view refuses."""
    state = state._replace(left=state.left._replace(refusals=state.left.refusals - 1))
    return with_insert(state, index, inserts(state)[index]._replace(stage="failed"))


def crash(scope: Scope, state: State, index: int, number: int) -> State:
    """End all that runs and empty the Memory table; the next part of one insert may leave its token, and no rows."""
    if index >= 0:
        state = state._replace(tokens=state.tokens | {(inserts(state)[index].batch, number)})
    tasks = (task._replace(insert=_ended(task.insert)) for task in state.tasks)
    readers = (one._replace(sent=_ended(one.sent)) if one.sent else one for one in state.readers)
    state = state._replace(
        tasks=tuple(sorted(tasks)),
        orphans=tuple(insert for insert in state.orphans if insert.stage not in LISTED),
        readers=tuple(readers),
        memory=frozenset(),
        left=state.left._replace(crashes=state.left.crashes - 1),
    )
    return refuse(scope, state)


def _ended(insert: Insert) -> Insert:
    return _tidy(insert._replace(stage="failed")) if insert.stage in LISTED else insert


def forget(scope: Scope, state: State, _index: int, _choice: int) -> State:
    """Let the window forget."""
    left = state.left._replace(forgets=state.left.forgets - 1)
    return state._replace(tokens=state.tokens - forgotten(scope, state), left=left)


def _is_fenced(scope: Scope, insert: Insert) -> bool:
    return scope.design.fence and (scope.design.fences_pushes or insert.mode == "first")


def _is_owner(scope: Scope, state: State, owner: int) -> bool:
    return state.newest[1] == owner and (owner in state.memory or not scope.restarts or not scope.design.memory)


def refuse(scope: Scope, state: State) -> State:
    """End what the fence is going to refuse; see `Scope.refused_at_once`."""
    if not scope.refused_at_once or not scope.design.fence:
        return state

    def is_doomed(owner: int) -> bool:
        return not _is_owner(scope, state, owner) and (state.newest[1] != owner or owner not in state.late)

    def is_refused(insert: Insert) -> bool:
        return insert.stage in {"sent", "listed"} and _is_fenced(scope, insert) and is_doomed(insert.owner)

    doomed = [message for message in state.queue if is_doomed(message.owner)]
    refused = [task for task in state.tasks if is_refused(task.insert)]
    orphans = tuple(insert for insert in state.orphans if not is_refused(insert))
    over = {
        r.owner
        for r in state.readers
        if r.owner != state.slot and r.step not in {"arm", "raise", "read back"} and is_doomed(r.owner)
    }
    if doomed or refused:
        state = state._replace(
            queue=tuple(message for message in state.queue if message not in doomed),
            tasks=tuple(task for task in state.tasks if task not in refused),
        )
        for message in (*doomed, *(task.message for task in refused)):
            state = report(state, Report(message.epoch, "stale", message.rows))
    if len(orphans) < len(state.orphans):
        state = state._replace(orphans=orphans)
    if over:
        state = without_readers(state, over)
    return state


def without_readers(state: State, owners: set[int]) -> State:
    """End readers; what they have sent to ClickHouse goes on."""
    for reader in state.readers:
        if reader.owner in owners and reader.sent:
            state = orphan(state, reader.sent)
    return heard_by_somebody(
        state._replace(readers=tuple(reader for reader in state.readers if reader.owner not in owners))
    )


def report(state: State, line: Report) -> State:
    """Put a report where the reader of its epoch finds it."""
    if line.outcome != "missing":
        state = state._replace(payloads=state.payloads - {line.rows})
    if line in state.reports:
        return state
    return heard_by_somebody(state._replace(reports=put(state.reports, line)))


def heard_by_somebody(state: State) -> State:
    """Drop the reports that nobody is going to read."""
    epochs = {reader.epoch for reader in state.readers}
    if all(line.epoch in epochs for line in state.reports):
        return state
    return state._replace(reports=tuple(line for line in state.reports if line.epoch in epochs))


def with_insert(state: State, index: int, insert: Insert) -> State:
    """Replace the insert of this index."""
    insert = _tidy(insert)
    if index < len(state.tasks):
        task = state.tasks[index]._replace(insert=insert)
        return state._replace(tasks=put(without(state.tasks, index), task))
    index -= len(state.tasks)
    if index < len(state.orphans):
        return orphan(state._replace(orphans=without(state.orphans, index)), insert)
    index -= len(state.orphans)
    number = [n for n, reader in enumerate(state.readers) if reader.sent][index]
    return with_reader(state, number, state.readers[number]._replace(sent=insert))


def _tidy(insert: Insert) -> Insert:
    # What is left matters while the insert runs only; equal ends are to be equal states.
    return insert._replace(left=0, views=()) if insert.stage in ENDED else insert


def orphan(state: State, insert: Insert) -> State:
    """Add an insert that nobody waits for, unless it is over."""
    return state if insert.stage in ENDED else state._replace(orphans=put(state.orphans, insert))


def with_reader(state: State, index: int, reader: Reader) -> State:
    """Replace the reader of this index."""
    return state._replace(readers=(*state.readers[:index], reader, *state.readers[index + 1 :]))


def put(items: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    """Return the sorted items with one more."""
    return tuple(sorted((*items, item)))


def without(items: tuple[Any, ...], index: int) -> tuple[Any, ...]:
    """Return the items without the one of this index."""
    return items[:index] + items[index + 1 :]

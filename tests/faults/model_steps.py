"""State and action -> the state after it.

Pure. One function for each action, found in `STEPS` by the name it has in traces, in the order of an event's way:
reader, Redis, worker, ClickHouse, and back. Some things that the code does in two steps are one here, where nothing
could tell the difference: a task that has begun and not fetched its payload is a message not delivered yet; a piece
is cut, decoded and dispatched at once; a worker that died is one that sleeps forever. The epoch's mirror in Redis is
not here, since it only spares trips; the model always makes them. Dead letters are not here either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults.model_actions import forgotten, inserts, redis
from tests.faults.model_state import ENDED, NOBODY, Insert, Message, Piece, Reader, Report, State, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.model_actions import Action
    from tests.faults.model_state import Scope


def step(scope: Scope, state: State, action: Action) -> State:
    """Return the state after an action that `actions` has offered."""
    return STEPS[action.name](scope, state, action.at, action.choice)


def _open(scope: Scope, state: State, _index: int, _choice: int) -> State:
    number = state.opened
    owner = scope.owners[number] if number < len(scope.owners) else 100 + number
    reader = Reader(
        "raise", owner, state.newest[0] + 1, 0, scope.first_row[state.confirmed], flush=state.confirmed, pieces=()
    )
    return state._replace(slot=owner, opened=number + 1, readers=(*state.readers, reader))


def _lose_slot(scope: Scope, state: State, index: int, _choice: int) -> State:
    if scope.zombies:
        return _refuse(scope, state._replace(slot=NOBODY))
    return _end(scope, state, index, 0)


def _lose_slot_and_position(scope: Scope, state: State, index: int, _choice: int) -> State:
    left = state.left._replace(setbacks=state.left.setbacks - 1)
    return _lose_slot(scope, state._replace(confirmed=state.confirmed - 1, left=left), index, 0)


def _end(_scope: Scope, state: State, index: int, _choice: int) -> State:
    slot = NOBODY if state.slot == state.readers[index].owner else state.slot
    readers = state.readers[:index] + state.readers[index + 1 :]
    return _heard_by_somebody(state._replace(slot=slot, readers=readers))


def _raise(scope: Scope, state: State, index: int, _choice: int) -> State:
    reader = state.readers[index]
    state = state._replace(newest=max(state.newest, (reader.epoch, reader.owner)))
    return _refuse(scope, _with(state, index, reader._replace(step="read back")))


def _read_back(scope: Scope, state: State, index: int, _choice: int) -> State:
    reader = state.readers[index]
    if state.newest[1] == reader.owner:
        return _with(state, index, reader._replace(step="settle"))
    if not state.left.raises:
        return _end(scope, state, index, 0)
    state = state._replace(left=state.left._replace(raises=state.left.raises - 1))
    return _with(state, index, reader._replace(step="raise", epoch=state.newest[0] + 1))


def _settle(_scope: Scope, state: State, index: int, _choice: int) -> State:
    return _with(state, index, state.readers[index]._replace(step="ask"))


def _ask(scope: Scope, state: State, index: int, _choice: int) -> State:
    held = state.stored if scope.design.ask else 0
    return _with(state, index, state.readers[index]._replace(step="stream", held=held))


def _cut(scope: Scope, state: State, index: int, size: int) -> State:
    reader = state.readers[index]
    end = reader.next + size
    rows = ((1 << end) - (1 << reader.next)) & ~reader.held
    reader = reader._replace(next=end)
    if rows:
        state = _dispatch(state, Message(reader.epoch, reader.owner, rows))
    accepted = scope.design.moves_on == "accepted"
    pieces = (*reader.pieces, Piece(0 if accepted else rows, scope.safe[end]))
    return _refuse(scope, _with(state, index, _advance(reader, pieces)))


def _again(scope: Scope, state: State, index: int, number: int) -> State:
    state = state._replace(left=state.left._replace(doubts=max(0, state.left.doubts - 1)))
    reader = state.readers[index]
    piece = reader.pieces[number]
    return _refuse(scope, _dispatch(state, Message(reader.epoch, reader.owner, piece.rows)))


def _feedback(_scope: Scope, state: State, index: int, _choice: int) -> State:
    return state._replace(confirmed=state.readers[index].flush)


def _hear(scope: Scope, state: State, index: int, number: int) -> State:
    report = state.reports[number]
    state = state._replace(reports=state.reports[:number] + state.reports[number + 1 :])
    reader = state.readers[index]
    for n, piece in enumerate(reader.pieces):
        if piece.rows != report.rows:
            continue
        match report.outcome:
            case "stale":
                return _end(scope, state, index, 0)
            case "missing":
                return _again(scope, state, index, n)
        pieces = (*reader.pieces[:n], piece._replace(rows=0), *reader.pieces[n + 1 :])
        return _with(state, index, _advance(reader, pieces))
    # Of a batch that is stored by now, or of another reader's: it moves nothing and stops nobody.
    return state


def _advance(reader: Reader, pieces: tuple[Piece, ...]) -> Reader:
    flush = reader.flush
    while pieces and not pieces[0].rows:
        flush = max(flush, pieces[0].safe)
        pieces = pieces[1:]
    return reader._replace(flush=flush, pieces=pieces)


def _dispatch(state: State, message: Message) -> State:
    queue = _put(state.queue, message)
    return state._replace(queue=queue, payloads=state.payloads | {message.rows})


def _lose_redis(_scope: Scope, state: State, _index: int, _choice: int) -> State:
    left = state.left._replace(losses=state.left.losses - 1)
    return state._replace(queue=(), payloads=frozenset(), reports=(), left=left)


def _save_redis(_scope: Scope, state: State, _index: int, _choice: int) -> State:
    return state._replace(copy=redis(state), left=state.left._replace(copies=state.left.copies - 1))


def _restore_redis(scope: Scope, state: State, _index: int, _choice: int) -> State:
    queue, payloads, reports = state.copy or redis(state)
    state = state._replace(queue=queue, payloads=payloads, reports=reports, copy=None)
    return _refuse(scope, _heard_by_somebody(state))


def _report(state: State, report: Report) -> State:
    if report.outcome != "missing":
        state = state._replace(payloads=state.payloads - {report.rows})
    if report in state.reports:
        return state
    return _heard_by_somebody(state._replace(reports=_put(state.reports, report)))


def _heard_by_somebody(state: State) -> State:
    epochs = {reader.epoch for reader in state.readers}
    if all(report.epoch in epochs for report in state.reports):
        return state
    return state._replace(reports=tuple(report for report in state.reports if report.epoch in epochs))


def _deliver(_scope: Scope, state: State, index: int, _choice: int) -> State:
    message = state.queue[index]
    state = state._replace(queue=_without(state.queue, index))
    if message.rows not in state.payloads:
        return _report(state, Report(message.epoch, "missing", message.rows))
    insert = Insert("sent", message.owner, message.rows)
    return state._replace(tasks=_put(state.tasks, Task(message.epoch, resent=False, insert=insert)))


def _deliver_twice(scope: Scope, state: State, index: int, _choice: int) -> State:
    message = state.queue[index]
    state = state._replace(left=state.left._replace(repeats=state.left.repeats - 1))
    state = _deliver(scope, state, index, 0)
    return state._replace(queue=_put(state.queue, message))


def _tell(scope: Scope, state: State, index: int, _choice: int) -> State:
    task = state.tasks[index]
    state = state._replace(tasks=_without(state.tasks, index))
    match task.insert.stage:
        case "stored":
            return _report(state, Report(task.epoch, "stored", task.insert.rows))
        case "refused":
            return _report(state, Report(task.epoch, "stale", task.insert.rows))
        case "failed":
            return _retry(scope, state, task)
    return state


def _answer_lost(scope: Scope, state: State, index: int, _choice: int) -> State:
    task = state.tasks[index]
    left = state.left._replace(drops=state.left.drops - 1)
    state = state._replace(left=left, tasks=_without(state.tasks, index))
    return _retry(scope, _orphan(state, task.insert), task)


def _send_hidden(scope: Scope, state: State, index: int, _choice: int) -> State:
    task = state.tasks[index]
    left = state.left._replace(drops=state.left.drops - 1)
    state = state._replace(left=left, tasks=_without(state.tasks, index))
    task_again = task._replace(resent=True, insert=task.insert._replace(stage="sent", left=0))
    return _refuse(scope, _orphan(state._replace(tasks=_put(state.tasks, task_again)), task.insert))


def _retry(scope: Scope, state: State, task: Task) -> State:
    message = Message(task.epoch, task.insert.owner, task.insert.rows)
    return _refuse(scope, state._replace(queue=_put(state.queue, message)))


def _list(scope: Scope, state: State, index: int, _choice: int) -> State:
    insert = inserts(state)[index]
    if scope.design.listed_first:
        return _with_insert(state, index, insert._replace(stage="listed"))
    return _with_insert(state, index, insert._replace(stage=_fenced(scope, state, insert) or "unlisted"))


def _begin(scope: Scope, state: State, index: int, _choice: int) -> State:
    insert = inserts(state)[index]
    fenced = _fenced(scope, state, insert) if insert.stage == "listed" else None
    if fenced:
        return _with_insert(state, index, insert._replace(stage=fenced))
    left = insert.rows & ~state.stored if scope.design.looks else insert.rows
    return _with_insert(state, index, insert._replace(stage="running" if left else "stored", left=left))


def _fenced(scope: Scope, state: State, insert: Insert) -> str | None:
    if scope.design.fence and state.newest[1] != insert.owner:
        return "refused"
    return None


def _land(scope: Scope, state: State, index: int, number: int) -> State:
    insert = inserts(state)[index]
    part = insert.left & scope.partitions[number]
    left = insert.left & ~part
    token = (insert.rows, number)
    if token not in state.tokens or not scope.design.token:
        state = state._replace(stored=state.stored | part, doubled=state.stored & part, tokens=state.tokens | {token})
    return _with_insert(state, index, insert._replace(stage="running" if left else "stored", left=left))


def _break(_scope: Scope, state: State, index: int, _choice: int) -> State:
    insert = inserts(state)[index]
    state = state._replace(left=state.left._replace(breaks=state.left.breaks - 1))
    return _with_insert(state, index, insert._replace(stage="failed", left=0))


def _forget(scope: Scope, state: State, _index: int, _choice: int) -> State:
    left = state.left._replace(forgets=state.left.forgets - 1)
    return state._replace(tokens=state.tokens - forgotten(scope, state), left=left)


def _refuse(scope: Scope, state: State) -> State:
    """End what the fence is going to refuse; see `Scope.refused_at_once`."""
    newest = state.newest[1]
    if not scope.refused_at_once or not scope.design.fence:
        return state
    doomed = [message for message in state.queue if message.owner != newest]
    refused = [task for task in state.tasks if task.insert.owner != newest and task.insert.stage in {"sent", "listed"}]
    if doomed or refused:
        state = state._replace(
            queue=tuple(message for message in state.queue if message not in doomed),
            tasks=tuple(task for task in state.tasks if task not in refused),
        )
        for message in doomed:
            state = _report(state, Report(message.epoch, "stale", message.rows))
        for task in refused:
            state = _report(state, Report(task.epoch, "stale", task.insert.rows))
    if any(insert.owner != newest and insert.stage in {"sent", "listed"} for insert in state.orphans):
        kept = (i for i in state.orphans if i.owner == newest or i.stage not in {"sent", "listed"})
        state = state._replace(orphans=tuple(kept))
    over = {
        r.owner for r in state.readers if r.owner not in (newest, state.slot) and r.step not in {"raise", "read back"}
    }
    if over:
        state = _heard_by_somebody(state._replace(readers=tuple(r for r in state.readers if r.owner not in over)))
    return state


def _with_insert(state: State, index: int, insert: Insert) -> State:
    if index < len(state.tasks):
        # What is left matters while the insert runs only; equal ends are to be equal states.
        task = state.tasks[index]._replace(insert=insert)
        return state._replace(tasks=_put(_without(state.tasks, index), task))
    index -= len(state.tasks)
    return _orphan(state._replace(orphans=_without(state.orphans, index)), insert)


def _orphan(state: State, insert: Insert) -> State:
    return state if insert.stage in ENDED else state._replace(orphans=_put(state.orphans, insert))


def _with(state: State, index: int, reader: Reader) -> State:
    return state._replace(readers=(*state.readers[:index], reader, *state.readers[index + 1 :]))


def _put(items: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    return tuple(sorted((*items, item)))


def _without(items: tuple[Any, ...], index: int) -> tuple[Any, ...]:
    return items[:index] + items[index + 1 :]


STEPS: dict[str, Callable[[Scope, State, int, int], State]] = {
    "open": _open,
    "raise": _raise,
    "read back": _read_back,
    "settle": _settle,
    "ask": _ask,
    "cut": _cut,
    "again": _again,
    "feedback": _feedback,
    "lose slot": _lose_slot,
    "lose slot and position": _lose_slot_and_position,
    "end": _end,
    "deliver": _deliver,
    "deliver twice": _deliver_twice,
    "lose redis": _lose_redis,
    "save redis": _save_redis,
    "restore redis": _restore_redis,
    "list": _list,
    "begin": _begin,
    "land": _land,
    "break": _break,
    "forget": _forget,
    "tell": _tell,
    "answer lost": _answer_lost,
    "send hidden": _send_hidden,
    "hear": _hear,
}

"""State and action -> the state after it.

Pure. One function for each action, found in `STEPS` by the name it has in traces, in the order of an event's way:
reader, Redis, worker, ClickHouse (tests/faults/model_clickhouse.py), and back. Some things that the code does in two
steps are one here, where nothing could tell the difference: a task that has begun and not fetched its payload is a
message not delivered yet; a piece is cut, decoded and dispatched at once; a worker that died is one that sleeps
forever. The epoch's mirror in Redis is not here, since it only spares trips; the model always makes them. Dead letters
are not here either, nor rows that a view can never take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.model_actions import redis
from tests.faults.model_clickhouse import (
    arm_late,
    begin,
    break_insert,
    crash,
    forget,
    heard_by_somebody,
    is_forgotten,
    land,
    list_insert,
    orphan,
    put,
    refuse,
    refuse_in_view,
    report,
    tear,
    with_reader,
    without,
    without_readers,
)
from tests.faults.model_state import NOBODY, Batch, Insert, Message, Piece, Reader, Report, State, Task, stored_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.model_actions import Action
    from tests.faults.model_design import Scope


def step(scope: Scope, state: State, action: Action) -> State:
    """Return the state after an action that `actions` has offered."""
    return STEPS[action.name](scope, state, action.at, action.choice)


def _open(scope: Scope, state: State, _index: int, _choice: int) -> State:
    number = state.opened
    owner = scope.owners[number] if number < len(scope.owners) else 100 + number
    step = "arm" if scope.restarts else "raise"
    reader = Reader(
        step, owner, state.newest[0] + 1, 0, scope.first_row[state.confirmed], flush=state.confirmed, pieces=()
    )
    return state._replace(slot=owner, opened=number + 1, readers=(*state.readers, reader))


def _lose_slot(scope: Scope, state: State, index: int, _choice: int) -> State:
    if scope.zombies:
        return refuse(scope, state._replace(slot=NOBODY))
    return _end(scope, state, index, 0)


def _lose_slot_and_position(scope: Scope, state: State, index: int, _choice: int) -> State:
    left = state.left._replace(setbacks=state.left.setbacks - 1)
    return _lose_slot(scope, state._replace(confirmed=state.confirmed - 1, left=left), index, 0)


def _end(_scope: Scope, state: State, index: int, _choice: int) -> State:
    owner = state.readers[index].owner
    slot = NOBODY if state.slot == owner else state.slot
    return without_readers(state._replace(slot=slot), {owner})


def _arm(_scope: Scope, state: State, index: int, late: int) -> State:
    reader = state.readers[index]
    state = state._replace(memory=state.memory | {reader.owner})
    if late:
        left = state.left._replace(late_arms=state.left.late_arms - 1)
        state = state._replace(late=state.late | {reader.owner}, left=left)
    return with_reader(state, index, reader._replace(step="raise"))


def _raise(scope: Scope, state: State, index: int, _choice: int) -> State:
    reader = state.readers[index]
    state = state._replace(newest=max(state.newest, (reader.epoch, reader.owner)))
    if scope.design.armed_once:
        state = state._replace(late=state.late - {reader.owner})
    return refuse(scope, with_reader(state, index, reader._replace(step="read back")))


def _read_back(scope: Scope, state: State, index: int, _choice: int) -> State:
    reader = state.readers[index]
    if state.newest[1] == reader.owner:
        return with_reader(state, index, reader._replace(step="settle"))
    if not state.left.raises:
        return _end(scope, state, index, 0)
    state = state._replace(left=state.left._replace(raises=state.left.raises - 1))
    return with_reader(state, index, reader._replace(step="raise", epoch=state.newest[0] + 1))


def _settle(scope: Scope, state: State, index: int, _choice: int) -> State:
    reader = state.readers[index]._replace(step="ask")
    if scope.views and scope.design.pushes and (todo := _past_slot(scope, state)):
        reader = reader._replace(step="push", todo=todo)
    return with_reader(state, index, reader)


def _past_slot(scope: Scope, state: State) -> tuple[Batch, ...]:
    return tuple(batch for batch, rows in state.batches if rows & ~scope.passed(state.confirmed))


def _push(scope: Scope, state: State, index: int, _choice: int) -> State:
    reader = state.readers[index]
    batch, *rest = reader.todo
    insert = Insert("sent", reader.owner, batch, stored_by(state, batch), "copy")
    if scope.design.guarded == "before" and is_forgotten(scope, state, batch):
        return _pushed(scope, with_reader(state, index, reader._replace(sent=insert._replace(stage="unsure"))), index)
    if scope.design.waits_for_views:
        return with_reader(state, index, reader._replace(sent=insert))
    reader = reader._replace(todo=tuple(rest), step="push" if rest else "ask")
    return with_reader(orphan(state, insert), index, reader)


def _pushed(scope: Scope, state: State, index: int) -> State:
    """Let a reader know what became of its statement."""
    reader, sent = state.readers[index], state.readers[index].sent
    reader, todo = reader._replace(sent=None), reader.todo
    match sent.stage if sent else "failed":
        case "refused":
            return _end(scope, with_reader(state, index, reader), index, 0)
        case "unsure":
            state, todo = state._replace(named=state.named | stored_by(state, todo[0])), todo[1:]
        case "stored":
            todo = todo[1:]
    return with_reader(state, index, reader._replace(todo=todo, step="push" if todo else "ask"))


def _ask(scope: Scope, state: State, index: int, _choice: int) -> State:
    held = state.stored if scope.design.ask else 0
    return with_reader(state, index, state.readers[index]._replace(step="stream", held=held))


def _cut(scope: Scope, state: State, index: int, size: int) -> State:
    reader = state.readers[index]
    end = reader.next + size
    rows = ((1 << end) - (1 << reader.next)) & ~reader.held
    reader = reader._replace(next=end)
    if rows:
        state = _dispatch(state, Message(reader.epoch, reader.owner, rows))
    accepted = scope.design.moves_on == "accepted"
    pieces = (*reader.pieces, Piece(0 if accepted else rows, scope.safe[end]))
    return refuse(scope, with_reader(state, index, _advance(reader, pieces)))


def _again(scope: Scope, state: State, index: int, number: int) -> State:
    state = state._replace(left=state.left._replace(doubts=max(0, state.left.doubts - 1)))
    reader = state.readers[index]
    piece = reader.pieces[number]
    return refuse(scope, _dispatch(state, _again_of(scope, Message(reader.epoch, reader.owner, piece.rows))))


def _again_of(scope: Scope, message: Message) -> Message:
    # Only a token without rows makes a difference between these messages, so other scopes are spared the states.
    return message._replace(again=bool(scope.left.tears))


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
        return with_reader(state, index, _advance(reader, pieces))
    # Of a batch that is stored by now, or of another reader's: it moves nothing and stops nobody.
    return state


def _advance(reader: Reader, pieces: tuple[Piece, ...]) -> Reader:
    flush = reader.flush
    while pieces and not pieces[0].rows:
        flush = max(flush, pieces[0].safe)
        pieces = pieces[1:]
    return reader._replace(flush=flush, pieces=pieces)


def _dispatch(state: State, message: Message) -> State:
    queue = put(state.queue, message)
    return state._replace(queue=queue, payloads=state.payloads | {message.rows})


def _lose_redis(_scope: Scope, state: State, _index: int, _choice: int) -> State:
    left = state.left._replace(losses=state.left.losses - 1)
    return state._replace(queue=(), payloads=frozenset(), reports=(), left=left)


def _save_redis(_scope: Scope, state: State, _index: int, _choice: int) -> State:
    return state._replace(copy=redis(state), left=state.left._replace(copies=state.left.copies - 1))


def _restore_redis(scope: Scope, state: State, _index: int, _choice: int) -> State:
    queue, payloads, reports = state.copy or redis(state)
    state = state._replace(queue=queue, payloads=payloads, reports=reports, copy=None)
    return refuse(scope, heard_by_somebody(state))


def _deliver(scope: Scope, state: State, index: int, _choice: int) -> State:
    message = state.queue[index]
    state = state._replace(queue=without(state.queue, index))
    if message.rows not in state.payloads:
        return report(state, Report(message.epoch, "missing", message.rows))
    insert = Insert("sent", message.owner, _batch(scope, message, message.rows), message.rows)
    return state._replace(tasks=put(state.tasks, Task(message, resent=False, insert=insert)))


def _batch(scope: Scope, message: Message, rows: int) -> Batch:
    by = {"owner": message.owner, "epoch": message.epoch, "rows": 0}
    return Batch(by[scope.design.token_of], rows)


def _deliver_twice(scope: Scope, state: State, index: int, _choice: int) -> State:
    message = state.queue[index]
    state = state._replace(left=state.left._replace(repeats=state.left.repeats - 1))
    state = _deliver(scope, state, index, 0)
    return state._replace(queue=put(state.queue, _again_of(scope, message)))


def _tell(scope: Scope, state: State, index: int, _choice: int) -> State:
    if index >= len(state.tasks):
        waiting = [n for n, reader in enumerate(state.readers) if reader.sent]
        return _pushed(scope, state, waiting[index - len(state.tasks) - len(state.orphans)])
    task = state.tasks[index]
    state = state._replace(tasks=without(state.tasks, index))
    match task.insert.stage:
        case "stored":
            return _stored(scope, state, task)
        case "told":
            return _told(scope, state, task)
        case "unsure":
            return _unsure(state, task)
        case "refused":
            return report(state, Report(task.message.epoch, "stale", task.message.rows))
        case "failed":
            return _retry(scope, state, task)
    return state


def _stored(scope: Scope, state: State, task: Task) -> State:
    checks = scope.design.checks_rows and (task.message.again or task.insert.mode == "push")
    outcome = "stale" if checks and task.message.rows & ~state.stored else "stored"
    return report(state, Report(task.message.epoch, outcome, task.message.rows))


def _unsure(state: State, task: Task) -> State:
    """Report the batch, and say that views may lack it; or end the session if the table lacks rows of it."""
    rows = task.message.rows
    if rows & ~state.stored:
        return report(state, Report(task.message.epoch, "stale", rows))
    return report(state._replace(named=state.named | rows), Report(task.message.epoch, "stored", rows))


def _told(scope: Scope, state: State, task: Task) -> State:
    """Send a batch again of which some rows are stored; if another batch has them, end the session."""
    insert, design = task.insert, scope.design
    if design.minds_others and insert.rows & state.stored & ~stored_by(state, insert.batch):
        return report(state, Report(task.message.epoch, "stale", task.message.rows))
    if design.guarded == "before" and is_forgotten(scope, state, insert.batch):
        return _unsure(state, task)
    if design.when_told == "report":
        return _stored(scope, state, task)
    rows = insert.rows if design.when_told == "whole" else insert.rows & ~state.stored
    if not rows:
        return _stored(scope, state, task)
    task = task._replace(insert=insert._replace(stage="sent", mode="push", rows=rows))
    return refuse(scope, state._replace(tasks=put(state.tasks, task)))


def _answer_lost(scope: Scope, state: State, index: int, _choice: int) -> State:
    task = state.tasks[index]
    left = state.left._replace(drops=state.left.drops - 1)
    state = state._replace(left=left, tasks=without(state.tasks, index))
    return _retry(scope, orphan(state, task.insert), task)


def _send_hidden(scope: Scope, state: State, index: int, _choice: int) -> State:
    task = state.tasks[index]
    left = state.left._replace(drops=state.left.drops - 1)
    state = state._replace(left=left, tasks=without(state.tasks, index))
    task_again = task._replace(resent=True, insert=task.insert._replace(stage="sent", left=0, views=()))
    return refuse(scope, orphan(state._replace(tasks=put(state.tasks, task_again)), task.insert))


def _retry(scope: Scope, state: State, task: Task) -> State:
    return refuse(scope, state._replace(queue=put(state.queue, _again_of(scope, task.message))))


STEPS: dict[str, Callable[[Scope, State, int, int], State]] = {
    "open": _open,
    "arm": _arm,
    "raise": _raise,
    "read back": _read_back,
    "settle": _settle,
    "push": _push,
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
    "arm late": arm_late,
    "list": list_insert,
    "begin": begin,
    "land": land,
    "break": break_insert,
    "tear": tear,
    "view refuses": refuse_in_view,
    "crash": crash,
    "forget": forget,
    "tell": _tell,
    "answer lost": _answer_lost,
    "send hidden": _send_hidden,
    "hear": _hear,
}

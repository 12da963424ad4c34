"""The model of replicas: two ClickHouse nodes, their Keeper, a proxy that goes round robin, readers and workers.

Pure. Keeper keeps the log of what is committed, and the tokens; a part and its token are committed together. A node
shows a prefix of the log, and what it has committed itself; it lists its own queries only. Each statement goes to any
node. A commit may end in doubt (code 319): the statement is over, its part is visible on its node, and some time
later it is in the log or gone. Redis is left out, since test_model.py has it: the reader's message reaches a worker,
and the worker's report the reader, or neither does. Views are left out, too: their tokens are in Keeper as the table's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from tests.faults.model_search import Model
from tests.faults.model_state import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODES = (0, 1)
LISTED = frozenset({"listed", "running"})


@dataclass(frozen=True, slots=True)
class Design:
    """What the code does; every field that is not as by default is a mutation."""

    # Before recovery asks for running inserts, every node shows the new epoch, and so refuses inserts of older ones.
    waits_for_all_nodes: bool = True
    # Recovery asks every node for its running inserts, and for what is stored.
    asks_all_for_inserts: bool = True
    asks_all_for_rows: bool = True
    # A reader asks every node for the newest pause.
    asks_all_for_pauses: bool = True
    # Recovery pushes every batch it finds past the slot's position, since its part may be in doubt; and asks for what
    # is stored only then.
    pushes: bool = True
    pushes_first: bool = True
    # A node that lacks rows of a batch, which another node shows, refuses to push it.
    counts_rows: bool = True
    # What a worker does after a doubt.
    after_doubt: Literal["same token", "second token", "look", "report"] = "same token"
    # A push whose token Keeper may have forgotten is refused.
    guarded: bool = True
    # A token is remembered until every node shows its part. This is an assumption, not a rule of outhaul.
    tokens_outlast_lag: bool = True


class Left(NamedTuple):
    """How often each fault, and each thing that could happen without end, may still happen."""

    doubts: int = 0  # a commit ends in doubt
    resends: int = 0  # a batch is sent again though nothing says that it is lost
    drops: int = 0  # a worker does not hear the answer to its insert
    forgets: int = 0  # Keeper forgets the tokens of all inserts that are over
    pauses: int = 0  # an operator pauses the reader


@dataclass(frozen=True, slots=True)
class Scope:
    """How much there is of everything. Each row is a transaction."""

    rows: int = 1
    pieces: tuple[int, ...] = (1,)
    sessions: int = 2
    # A node with a part in doubt may be killed: nobody sees the part then, and it may still be committed.
    hidden_doubts: bool = False
    left: Left = field(default_factory=Left)
    design: Design = field(default_factory=Design)


class Entry(NamedTuple):
    """What Keeper has committed, and by which node: an epoch, a part, a pause or its end."""

    kind: str
    owner: int
    rows: int
    node: int


class Token(NamedTuple):
    """What a token is made of."""

    owner: int
    rows: int
    second: bool = False


class Insert(NamedTuple):
    """An INSERT statement.

    Its stages are sent, listed (among the running queries of `node`), running (has asked for owner and positions), and
    at its end stored, told, unsure, refused or doubtful. `push`: it takes all of the batch and relies on the token.
    """

    stage: str
    token: Token
    owner: int
    node: int = 0
    push: bool = False
    copy: bool = False


class Doubt(NamedTuple):
    """A commit of a part or an epoch that is neither in the log nor gone; its node shows it, unless it was killed."""

    token: Token
    node: int
    kind: str = "part"
    is_shown: bool = True


class Reader(NamedTuple):
    """A session, at the step that comes next: raise, settle, find, push, ask, read pause, stream."""

    step: str
    owner: int
    next: int
    asked: int = 0  # nodes, as a set
    todo: tuple[Token, ...] = ()
    sent: Insert | None = None
    held: int = 0
    pieces: tuple[int, ...] = ()


class State(NamedTuple):
    """Everything there is, at one moment; inserts are sorted, since workers have no names."""

    confirmed: int
    opened: int
    reader: Reader | None
    tasks: tuple[Insert, ...]
    orphans: tuple[Insert, ...]
    doubts: tuple[Doubt, ...]
    log: tuple[Entry, ...]
    shown: tuple[int, ...]  # how much of the log each node shows
    tokens: frozenset[Token]
    ignored_pause: bool
    left: Left


class Action(NamedTuple):
    """What happens; `at` says to which of several, `choice` on which node."""

    name: str
    at: int = 0
    choice: int = 0


def first(scope: Scope) -> State:
    """Return the state in which everything is committed in Postgres and nobody has begun."""
    return State(
        confirmed=0,
        opened=0,
        reader=None,
        tasks=(),
        orphans=(),
        doubts=(),
        log=(),
        shown=(0,) * len(NODES),
        tokens=frozenset(),
        ignored_pause=False,
        left=scope.left,
    )


def broken(_scope: Scope, state: State) -> str | None:
    """Name the invariant that does not hold; None when all do."""
    stored = 0
    for entry in state.log:
        if entry.kind == "part":
            if stored & entry.rows:
                return f"rows {names(stored & entry.rows)} are stored twice"
            stored |= entry.rows
    if lost := ((1 << state.confirmed) - 1) & ~stored:
        return f"the slot has passed rows {names(lost)}, which ClickHouse lacks"
    return "the reader takes rows in a pause" if state.ignored_pause else None


def done(scope: Scope, state: State) -> bool:
    """Tell whether the slot has passed all rows; `broken` sees to it that they are stored once."""
    return state.confirmed == scope.rows


def actions(scope: Scope, state: State) -> Iterator[Action]:
    """Offer everything that can happen."""
    yield from fair(scope, state)
    left, reader = state.left, state.reader
    if reader and state.opened < scope.sessions:
        yield Action("lose slot")
    if reader and left.resends:
        yield from (Action("again", n) for n, rows in enumerate(reader.pieces) if rows)
    if reader and reader.step == "raise" and left.doubts:
        yield from (Action("doubt epoch", 0, node) for node in NODES)
    for i, insert in enumerate(inserts(state)):
        if insert.stage == "running" and left.doubts:
            yield Action("doubt", i)
        if insert.stage in LISTED and left.drops and i < len(state.tasks):
            yield Action("answer lost", i)
    yield from (Action("vanish", n) for n in range(len(state.doubts)))
    if scope.hidden_doubts:
        yield from (Action("hide", n) for n, doubt in enumerate(state.doubts) if doubt.is_shown)
    if left.forgets and forgotten(scope, state):
        yield Action("forget")
    if left.pauses:
        yield Action("pause")


def fair(scope: Scope, state: State) -> Iterator[Action]:
    """Offer what goes on without faults; without them a reader is started as often as needed."""
    reader = state.reader
    if reader is None:
        if state.opened < scope.sessions or state.left == Left():
            yield Action("open")
    elif not reader.sent:
        yield from _of_reader(scope, state, reader)
    for i, insert in enumerate(inserts(state)):
        match insert.stage:
            case "sent":
                yield from (Action("list", i, node) for node in NODES)
            case "listed":
                yield Action("begin", i)
            case "running":
                yield Action("commit", i)
            case _:
                yield Action("tell", i)
    yield from (Action("land late", n) for n in range(len(state.doubts)))
    yield from (Action("show", node) for node in NODES if state.shown[node] < len(state.log))
    if is_paused(state.log):
        yield Action("resume")


def _of_reader(scope: Scope, state: State, reader: Reader) -> Iterator[Action]:
    design = scope.design
    match reader.step:
        case "raise":
            yield from (Action("raise", 0, node) for node in NODES)
        case "settle":
            if not any(entry.owner == reader.owner for entry in state.log) and not state.doubts:
                yield from (Action("raise", 0, node) for node in NODES)
            yield from (Action("settle", 0, node) for node in NODES if _is_settled(scope, state, reader, node))
        case "push":
            yield Action("push")
        case "read pause":
            logs = [seen(state, node) for node in NODES] if not design.asks_all_for_pauses else [state.log]
            yield from (Action("read pause", 0, node) for node, log in enumerate(logs) if not is_paused(log))
        case "stream":
            yield from (Action("cut", size) for size in {min(s, scope.rows - reader.next) for s in scope.pieces} - {0})
        case "find" | "ask":
            nodes = NODES if not design.asks_all_for_rows else NODES[:1]
            yield from (Action(reader.step, 0, node) for node in nodes)


def _is_settled(scope: Scope, state: State, reader: Reader, node: int) -> bool:
    """Tell whether recovery may go on as far as this node is concerned."""
    if scope.design.waits_for_all_nodes and any(newest_at(state, one) < reader.owner for one in NODES):
        return False
    return not reader.asked >> node & 1 and not any(i.stage in LISTED and i.node == node for i in inserts(state))


def inserts(state: State) -> tuple[Insert, ...]:
    """Return all inserts: those of workers, those that nobody waits for, and the reader's."""
    of_reader = (state.reader.sent,) if state.reader and state.reader.sent else ()
    return (*state.tasks, *state.orphans, *of_reader)


def seen(state: State, node: int) -> tuple[Entry, ...]:
    """Return what a node shows of the log."""
    own = (entry for entry in state.log[state.shown[node] :] if entry.node == node)
    return (*state.log[: state.shown[node]], *own)


def stored_at(state: State, node: int) -> int:
    """Return the rows that a query on a node finds, those in doubt included."""
    rows = [entry.rows for entry in seen(state, node) if entry.kind == "part"]
    return _union([*rows, *(doubt.token.rows for doubt in state.doubts if doubt.node == node and doubt.is_shown)])


def found(scope: Scope, state: State, node: int) -> tuple[Token, ...]:
    """Return the batches that recovery finds past the slot's position."""
    nodes = NODES if scope.design.asks_all_for_rows else (node,)
    shown = {entry for one in nodes for entry in seen(state, one) if entry.kind == "part"}
    tokens = {Token(entry.owner, entry.rows) for entry in shown}
    tokens |= {doubt.token for doubt in state.doubts if doubt.node in nodes and doubt.is_shown and doubt.token.rows}
    return tuple(sorted(token for token in tokens if token.rows >> state.confirmed))


def newest_at(state: State, node: int) -> int:
    """Return the newest owner that a query on a node finds, one in doubt included."""
    owners = [entry.owner for entry in seen(state, node) if entry.kind == "epoch"]
    owners += [d.token.owner for d in state.doubts if d.node == node and d.kind == "epoch" and d.is_shown]
    return max(owners, default=0)


def is_paused(log: tuple[Entry, ...]) -> bool:
    """Tell whether the last pause has not ended."""
    return next((entry.kind == "pause" for entry in reversed(log) if entry.kind in {"pause", "resume"}), False)


def forgotten(scope: Scope, state: State) -> frozenset[Token]:
    """Return the tokens that Keeper may forget: of inserts that are over, and of parts that every node shows."""
    kept = {i.token for i in inserts(state) if i.stage in LISTED} | {d.token for d in state.doubts}
    if scope.design.tokens_outlast_lag:
        kept |= {Token(entry.owner, entry.rows) for entry in state.log[min(state.shown) :]}
    return state.tokens - kept


def describe(state: State, action: Action) -> str:
    """Say what the action does in this state, for a trace."""
    match action.name:
        case "list" | "begin" | "commit" | "doubt" | "tell" | "answer lost":
            insert = inserts(state)[action.at]
            node = action.choice if action.name == "list" else insert.node
            kind = "push" if insert.push else "insert"
            return f"{action.name}: {kind} of {names(insert.token.rows)}, epoch {insert.token.owner}, on node {node}"
        case "land late" | "vanish" | "hide":
            doubt = state.doubts[action.at]
            return f"{action.name}: {names(doubt.token.rows)}, epoch {doubt.token.owner}, of node {doubt.node}"
        case "show":
            return f"show: node {action.at} applies {state.log[state.shown[action.at]].kind}"
    who = f", epoch {state.reader.owner}" if state.reader else ""
    return f"{action.name}: at {action.at}, on node {action.choice}{who}"


def step(scope: Scope, state: State, action: Action) -> State:
    """Return the state after an action that `actions` has offered."""
    return _tidy(STEPS[action.name](scope, state, action.at, action.choice))


def _tidy(state: State) -> State:
    """Make equal what nothing can tell apart: the order of what every node shows, and who has committed it."""
    old = state.log[: min(state.shown)]
    epochs = sorted(entry._replace(node=0) for entry in old if entry.kind == "epoch")
    parts = sorted(entry._replace(node=0) for entry in old if entry.kind == "part")
    pauses = [entry for entry in old if entry.kind in {"pause", "resume"}]
    kept = (*epochs[-1:], *parts, *pauses[-1:])
    shown = tuple(n - len(old) + len(kept) for n in state.shown)
    state = state._replace(log=(*kept, *state.log[len(old) :]), shown=shown)
    # What every node refuses is refused at once, which spares states.
    newest = min(max((entry.owner for entry in seen(state, n) if entry.kind == "epoch"), default=0) for n in NODES)

    def going_on(sent: tuple[Insert, ...]) -> tuple[Insert, ...]:
        return tuple(i for i in sent if i.owner >= newest or i.stage not in {"sent", "listed"})

    return state._replace(tasks=going_on(state.tasks), orphans=going_on(state.orphans))


def _open(_scope: Scope, state: State, _at: int, _node: int) -> State:
    return state._replace(reader=Reader("raise", state.opened + 1, state.confirmed), opened=state.opened + 1)


def _lose_slot(_scope: Scope, state: State, _at: int, _node: int) -> State:
    return _end(state)


def _end(state: State) -> State:
    sent = state.reader.sent if state.reader else None
    if sent and sent.stage in {"sent", *LISTED}:
        state = state._replace(orphans=tuple(sorted((*state.orphans, sent))))
    return state._replace(reader=None)


def _raise(_scope: Scope, state: State, _at: int, node: int) -> State:
    reader = _reader(state)
    state = _commit_entry(state, Entry("epoch", reader.owner, 0, node))
    return state._replace(reader=reader._replace(step="settle"))


def _doubt_epoch(_scope: Scope, state: State, _at: int, node: int) -> State:
    # The reader finds its epoch, or raises one once more; the model has both.
    reader, left = _reader(state), state.left._replace(doubts=state.left.doubts - 1)
    doubts = tuple(sorted((*state.doubts, Doubt(Token(reader.owner, 0), node, "epoch"))))
    return state._replace(reader=reader._replace(step="settle"), doubts=doubts, left=left)


def _settle(scope: Scope, state: State, _at: int, node: int) -> State:
    asked = _reader(state).asked | 1 << node
    is_over = asked == (1 << len(NODES)) - 1 or not scope.design.asks_all_for_inserts
    step_after = "settle" if not is_over else "find" if scope.design.pushes_first else "ask"
    return state._replace(reader=_reader(state)._replace(asked=0 if is_over else asked, step=step_after))


def _find(scope: Scope, state: State, _at: int, node: int) -> State:
    todo = found(scope, state, node) if scope.design.pushes else ()
    return _pushed(scope, state, _reader(state)._replace(todo=todo))


def _pushed(scope: Scope, state: State, reader: Reader) -> State:
    after = "ask" if scope.design.pushes_first else "read pause"
    return state._replace(reader=reader._replace(sent=None, step="push" if reader.todo else after))


def _push(_scope: Scope, state: State, _at: int, _node: int) -> State:
    reader = _reader(state)
    return state._replace(
        reader=reader._replace(sent=Insert("sent", reader.todo[0], reader.owner, push=True, copy=True))
    )


def _ask(scope: Scope, state: State, _at: int, node: int) -> State:
    nodes = NODES if scope.design.asks_all_for_rows else (node,)
    held = _union([stored_at(state, one) for one in nodes])
    return state._replace(
        reader=_reader(state)._replace(step="read pause" if scope.design.pushes_first else "find", held=held)
    )


def _read_pause(_scope: Scope, state: State, _at: int, _node: int) -> State:
    return state._replace(reader=_reader(state)._replace(step="stream"), ignored_pause=is_paused(state.log))


def _pause(_scope: Scope, state: State, _at: int, _node: int) -> State:
    left = state.left._replace(pauses=state.left.pauses - 1)
    return _commit_entry(state._replace(left=left), Entry("pause", 0, 0, 0))


def _resume(_scope: Scope, state: State, _at: int, _node: int) -> State:
    return _commit_entry(state, Entry("resume", 0, 0, 0))


def _cut(scope: Scope, state: State, size: int, _node: int) -> State:
    reader = _reader(state)
    end = reader.next + size
    rows = ((1 << end) - (1 << reader.next)) & ~reader.held
    reader = reader._replace(next=end, pieces=(*reader.pieces, rows))
    state = _advance(state, reader)
    return _send(scope, state, Insert("sent", Token(reader.owner, rows), reader.owner)) if rows else state


def _again(scope: Scope, state: State, at: int, _node: int) -> State:
    reader, left = _reader(state), state.left._replace(resends=state.left.resends - 1)
    return _send(scope, state._replace(left=left), Insert("sent", Token(reader.owner, reader.pieces[at]), reader.owner))


def _advance(state: State, reader: Reader) -> State:
    """Move the slot past the first pieces that are stored."""
    open_rows = _union(reader.pieces)
    confirmed = (open_rows & -open_rows).bit_length() - 1 if open_rows else reader.next
    return state._replace(reader=reader, confirmed=confirmed)


def _list(_scope: Scope, state: State, at: int, node: int) -> State:
    return _with_insert(state, at, _insert(state, at)._replace(stage="listed", node=node))


def _begin(scope: Scope, state: State, at: int, _node: int) -> State:
    insert = _insert(state, at)
    shown = stored_at(state, insert.node) & insert.token.rows
    forgotten_by_keeper = _is_in_log(state, insert.token) and insert.token not in state.tokens
    match insert:
        case _ if newest_at(state, insert.node) > insert.owner:
            stage = "refused"
        case Insert(copy=True) if shown != insert.token.rows:
            stage = "lacking" if scope.design.counts_rows else "stored"
        case Insert(push=True) if scope.design.guarded and forgotten_by_keeper:
            stage = "unsure"
        case Insert(push=False) if shown:
            stage = "told"
        case _:
            stage = "running"
    return _with_insert(state, at, insert._replace(stage=stage))


def _is_in_log(state: State, token: Token) -> bool:
    return any(entry.kind == "part" and entry[1:3] == token[:2] for entry in state.log)


def _commit(_scope: Scope, state: State, at: int, _node: int) -> State:
    insert = _insert(state, at)
    state = _commit_part(state, insert.token, insert.node)
    return _with_insert(state, at, insert._replace(stage="stored"))


def _commit_part(state: State, token: Token, node: int) -> State:
    """Commit a part with its token, unless Keeper knows the token."""
    if token in state.tokens:
        return state
    state = _commit_entry(state, Entry("part", token.owner, token.rows, node))
    return state._replace(tokens=state.tokens | {token})


def _commit_entry(state: State, entry: Entry) -> State:
    return state._replace(log=(*state.log, entry))


def _doubt(_scope: Scope, state: State, at: int, _node: int) -> State:
    insert, left = _insert(state, at), state.left._replace(doubts=state.left.doubts - 1)
    doubts = tuple(sorted((*state.doubts, Doubt(insert.token, insert.node))))
    return _with_insert(state._replace(doubts=doubts, left=left), at, insert._replace(stage="doubtful"))


def _land_late(scope: Scope, state: State, at: int, _node: int) -> State:
    doubt = state.doubts[at]
    state = _vanish(scope, state, at, 0)
    if doubt.kind == "epoch":
        return _commit_entry(state, Entry("epoch", doubt.token.owner, 0, doubt.node))
    return _commit_part(state, doubt.token, doubt.node)


def _hide(_scope: Scope, state: State, at: int, _node: int) -> State:
    hidden = state.doubts[at]._replace(is_shown=False)
    return state._replace(doubts=tuple(sorted((*state.doubts[:at], hidden, *state.doubts[at + 1 :]))))


def _vanish(_scope: Scope, state: State, at: int, _node: int) -> State:
    return state._replace(doubts=(*state.doubts[:at], *state.doubts[at + 1 :]))


def _answer_lost(scope: Scope, state: State, at: int, _node: int) -> State:
    insert, left = _insert(state, at), state.left._replace(drops=state.left.drops - 1)
    state = state._replace(left=left, tasks=(*state.tasks[:at], *state.tasks[at + 1 :]))
    state = state._replace(orphans=tuple(sorted((*state.orphans, insert))))
    return _send(scope, state, Insert("sent", insert.token, insert.owner))


def _tell(scope: Scope, state: State, at: int, _node: int) -> State:
    """Let a worker do what follows from the answer to its insert."""
    insert = _insert(state, at)
    if at >= len(state.tasks):
        return _tell_reader(scope, state)
    state = state._replace(tasks=(*state.tasks[:at], *state.tasks[at + 1 :]))
    match insert.stage:
        case "stored":
            return _stored(state, insert.token)
        case "told" if scope.design.after_doubt == "look":
            return _stored(state, insert.token)
        case "told":
            return _send(scope, state, insert._replace(stage="sent", node=0, push=True))
        case "doubtful":
            return _after_doubt(scope, state, insert)
        case "unsure" if not _is_in_log(state, insert.token):
            return state
        case "unsure":
            return _stored(state, insert.token)
    return state


def _tell_reader(scope: Scope, state: State) -> State:
    """Let recovery know what became of its push."""
    reader = _reader(state)
    match reader.sent.stage if reader.sent else "":
        case "refused":
            return _end(state._replace(reader=reader._replace(sent=None)))
        case "stored" | "unsure":
            return _pushed(scope, state, reader._replace(todo=reader.todo[1:]))
        case "lacking":
            # Recovery begins again.
            return state._replace(reader=reader._replace(step="find", todo=(), sent=None))
    return state._replace(reader=reader._replace(sent=None))


def _after_doubt(scope: Scope, state: State, insert: Insert) -> State:
    token, again = insert.token, insert._replace(stage="sent", node=0, push=True)
    match scope.design.after_doubt:
        case "report":
            return _stored(state, token)
        case "look":
            again = again._replace(push=False)
        case "second token":
            again = again._replace(token=token._replace(second=True))
    return _send(scope, state, again)


def _stored(state: State, token: Token) -> State:
    reader = state.reader
    if reader is None or reader.owner != token.owner:
        return state
    return _advance(state, reader._replace(pieces=tuple(0 if p == token.rows else p for p in reader.pieces)))


def _forget(scope: Scope, state: State, _at: int, _node: int) -> State:
    left = state.left._replace(forgets=state.left.forgets - 1)
    return state._replace(tokens=state.tokens - forgotten(scope, state), left=left)


def _show(_scope: Scope, state: State, node: int, _choice: int) -> State:
    return state._replace(shown=tuple(n + (one == node) for one, n in enumerate(state.shown)))


def _send(_scope: Scope, state: State, insert: Insert) -> State:
    return state._replace(tasks=tuple(sorted((*state.tasks, insert))))


def _insert(state: State, at: int) -> Insert:
    return inserts(state)[at]


def _with_insert(state: State, at: int, insert: Insert) -> State:
    if insert.stage not in LISTED:
        insert = insert._replace(node=0)
    if at < len(state.tasks):
        return state._replace(tasks=tuple(sorted((*state.tasks[:at], insert, *state.tasks[at + 1 :]))))
    at -= len(state.tasks)
    if at == len(state.orphans):
        return state._replace(reader=_reader(state)._replace(sent=insert))
    others = (*state.orphans[:at], *state.orphans[at + 1 :])
    return state._replace(orphans=tuple(sorted((*others, insert))) if insert.stage in LISTED else others)


def _reader(state: State) -> Reader:
    if state.reader is None:
        raise LookupError("no reader")
    return state.reader


def _union(sets: tuple[int, ...] | list[int]) -> int:
    union = 0
    for one in sets:
        union |= one
    return union


def _calm(state: State) -> tuple[State, ...]:
    """Return the state without faults to come: with the workers there are, and with none of them."""
    calm = state._replace(left=Left())
    running = (insert for insert in calm.tasks if insert.stage in LISTED)
    asleep = calm._replace(tasks=(), orphans=tuple(sorted((*calm.orphans, *running))))
    # The reader sends again what nobody has; here a new session does it.
    return calm, _end(asleep)


STEPS: dict[str, Callable[[Scope, State, int, int], State]] = {
    "open": _open,
    "lose slot": _lose_slot,
    "raise": _raise,
    "doubt epoch": _doubt_epoch,
    "settle": _settle,
    "find": _find,
    "push": _push,
    "ask": _ask,
    "read pause": _read_pause,
    "cut": _cut,
    "again": _again,
    "list": _list,
    "begin": _begin,
    "commit": _commit,
    "doubt": _doubt,
    "land late": _land_late,
    "vanish": _vanish,
    "hide": _hide,
    "answer lost": _answer_lost,
    "tell": _tell,
    "forget": _forget,
    "show": _show,
    "pause": _pause,
    "resume": _resume,
}

_ORDER = "begin, commit, list, tell, land late, show, resume, settle, raise, find, push, ask, read pause, cut, open"

REPLICAS = Model(
    first=first,
    actions=actions,
    fair=fair,
    step=step,
    describe=describe,
    broken=broken,
    done=done,
    calm=_calm,
    rank={name: rank for rank, name in enumerate(_ORDER.split(", "))},
)

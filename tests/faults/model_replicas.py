"""The model of replicas: two ClickHouse nodes, their Keeper, a proxy that goes round robin, readers and workers.

Pure. Keeper keeps the log of what is committed, and the tokens; a part and its token are committed together. A node
shows a prefix of the log, and what it has committed itself; it lists its own queries only. Each statement goes to any
node. A commit may end in doubt (code 319): the statement is over, its part stays visible on its node, and some time
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

    # Recovery asks every node for its running queries.
    asks_all_nodes: bool = True
    # Statements that read these wait until their node shows all that is committed.
    sequential_fence: bool = True
    sequential_recovery: bool = True
    sequential_inserts: bool = True
    sequential_pauses: bool = True
    # Recovery waits until no commit of an older session can be in doubt any more: Keeper's session timeout.
    waits_for_doubts: bool = True
    # A reader whose new epoch is in doubt raises one until ClickHouse says yes; reading it back is not enough.
    raises_until_yes: bool = True
    # What a worker does after a doubt.
    after_doubt: Literal["same token", "second token", "look", "report"] = "same token"
    # A push whose token Keeper may have forgotten is refused.
    guarded: bool = True

    @property
    def reads_late(self) -> bool:
        """Whether a statement can tell a node that lags from one that does not."""
        sequential = (self.sequential_fence, self.sequential_recovery, self.sequential_inserts, self.sequential_pauses)
        return not all(sequential)


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
    # Nodes lag even if no statement could tell.
    lag: bool = False
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
    node: int = 0
    push: bool = False


class Doubt(NamedTuple):
    """A commit of a part, or of an epoch, that is neither in the log nor gone; its node shows it."""

    token: Token
    node: int
    kind: str = "part"


class Reader(NamedTuple):
    """A session, at the step that comes next: raise, (read back,) settle, wait, ask, read pause, stream."""

    step: str
    owner: int
    next: int
    asked: int = 0  # nodes, as a set
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
    for i, insert in enumerate((*state.tasks, *state.orphans)):
        if insert.stage == "running" and left.doubts:
            yield Action("doubt", i)
        if insert.stage in LISTED and left.drops and i < len(state.tasks):
            yield Action("answer lost", i)
    yield from (Action("vanish", n) for n in range(len(state.doubts)))
    if left.forgets and forgotten(state):
        yield Action("forget")
    if left.pauses:
        yield Action("pause")


def fair(scope: Scope, state: State) -> Iterator[Action]:
    """Offer what goes on without faults; without them a reader is started as often as needed."""
    reader = state.reader
    if reader is None:
        if state.opened < scope.sessions or state.left == Left():
            yield Action("open")
    else:
        yield from _of_reader(scope, state, reader)
    for i, insert in enumerate((*state.tasks, *state.orphans)):
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
    match reader.step:
        case "settle":
            for node in NODES:
                running = any(i.stage in LISTED and i.node == node for i in (*state.tasks, *state.orphans))
                if not reader.asked >> node & 1 and not running:
                    yield Action("settle", 0, node)
        case "wait":
            if not state.doubts or not scope.design.waits_for_doubts:
                yield Action("wait")
        case "stream":
            yield from (Action("cut", size) for size in {min(s, scope.rows - reader.next) for s in scope.pieces} - {0})
        case "read pause" if scope.design.sequential_pauses:
            if not is_paused(state.log):
                yield Action("read pause")
        case "read pause":
            yield from (Action("read pause", 0, node) for node in NODES if not is_paused(seen(state, node)))
        case "read back":
            for node in NODES:
                is_newest = newest_at(state, node, sequential=True) == reader.owner
                yield Action("read back" if is_newest else "raise", 0, node)
        case _:
            yield from (Action(reader.step, 0, node) for node in NODES)


def seen(state: State, node: int) -> tuple[Entry, ...]:
    """Return what a node shows of the log."""
    own = (entry for entry in state.log[state.shown[node] :] if entry.node == node)
    return (*state.log[: state.shown[node]], *own)


def stored_at(state: State, node: int, *, sequential: bool) -> int:
    """Return the rows that a query on a node finds; parts in doubt are visible, however it asks."""
    log = state.log if sequential else seen(state, node)
    rows = [entry.rows for entry in log if entry.kind == "part"]
    rows += [doubt.token.rows for doubt in state.doubts if doubt.node == node]
    return _union(rows)


def newest_at(state: State, node: int, *, sequential: bool) -> int:
    """Return the newest owner that a query on a node finds; epochs in doubt are visible, however it asks."""
    log = state.log if sequential else seen(state, node)
    owners = [entry.owner for entry in log if entry.kind == "epoch"]
    owners += [doubt.token.owner for doubt in state.doubts if doubt.node == node and doubt.kind == "epoch"]
    return max(owners, default=0)


def is_paused(log: tuple[Entry, ...]) -> bool:
    """Tell whether the last pause has not ended."""
    return next((entry.kind == "pause" for entry in reversed(log) if entry.kind in {"pause", "resume"}), False)


def forgotten(state: State) -> frozenset[Token]:
    """Return the tokens that Keeper may forget: of inserts that are over."""
    kept = {i.token for i in (*state.tasks, *state.orphans) if i.stage in LISTED} | {d.token for d in state.doubts}
    return state.tokens - kept


def describe(state: State, action: Action) -> str:
    """Say what the action does in this state, for a trace."""
    match action.name:
        case "list" | "begin" | "commit" | "doubt" | "tell" | "answer lost":
            insert = (*state.tasks, *state.orphans)[action.at]
            node = action.choice if action.name == "list" else insert.node
            kind = "push" if insert.push else "insert"
            return f"{action.name}: {kind} of {names(insert.token.rows)}, epoch {insert.token.owner}, on node {node}"
        case "land late" | "vanish":
            doubt = state.doubts[action.at]
            return f"{action.name}: {names(doubt.token.rows)}, epoch {doubt.token.owner}, of node {doubt.node}"
        case "show":
            return f"show: node {action.at} applies {state.log[state.shown[action.at]].kind}"
    who = f", epoch {state.reader.owner}" if state.reader else ""
    return f"{action.name}: at {action.at}, on node {action.choice}{who}"


def step(scope: Scope, state: State, action: Action) -> State:
    """Return the state after an action that `actions` has offered."""
    return _tidy(scope, STEPS[action.name](scope, state, action.at, action.choice))


def _tidy(scope: Scope, state: State) -> State:
    """Make equal what nothing can tell apart: the order of what every node shows, and who has committed it."""
    if not scope.lag and not scope.design.reads_late:
        state = state._replace(shown=(len(state.log),) * len(NODES))
    old = state.log[: min(state.shown)]
    epochs = sorted(entry._replace(node=0) for entry in old if entry.kind == "epoch")
    parts = sorted(entry._replace(node=0) for entry in old if entry.kind == "part")
    pauses = [entry for entry in old if entry.kind in {"pause", "resume"}]
    kept = (*epochs[-1:], *parts, *pauses[-1:])
    shown = tuple(n - len(old) + len(kept) for n in state.shown)
    return state._replace(log=(*kept, *state.log[len(old) :]), shown=shown)


def _open(_scope: Scope, state: State, _at: int, _node: int) -> State:
    return state._replace(reader=Reader("raise", state.opened + 1, state.confirmed), opened=state.opened + 1)


def _lose_slot(_scope: Scope, state: State, _at: int, _node: int) -> State:
    return state._replace(reader=None)


def _raise(scope: Scope, state: State, _at: int, node: int) -> State:
    reader = _reader(state)
    state = _commit_entry(state, Entry("epoch", reader.owner, 0, node))
    return _refuse(scope, state._replace(reader=reader._replace(step="settle")))


def _doubt_epoch(scope: Scope, state: State, _at: int, node: int) -> State:
    reader, left = _reader(state), state.left._replace(doubts=state.left.doubts - 1)
    doubts = tuple(sorted((*state.doubts, Doubt(Token(reader.owner, 0), node, "epoch"))))
    reader = reader._replace(step="raise" if scope.design.raises_until_yes else "read back")
    return state._replace(reader=reader, doubts=doubts, left=left)


def _read_back(_scope: Scope, state: State, _at: int, _node: int) -> State:
    return state._replace(reader=_reader(state)._replace(step="settle"))


def _settle(scope: Scope, state: State, _at: int, node: int) -> State:
    asked = _reader(state).asked | 1 << node
    is_over = asked == (1 << len(NODES)) - 1 or not scope.design.asks_all_nodes
    return state._replace(reader=_reader(state)._replace(asked=asked, step="wait" if is_over else "settle"))


def _wait(_scope: Scope, state: State, _at: int, _node: int) -> State:
    return state._replace(reader=_reader(state)._replace(step="ask", asked=0))


def _ask(scope: Scope, state: State, _at: int, node: int) -> State:
    held = stored_at(state, node, sequential=scope.design.sequential_recovery)
    return state._replace(reader=_reader(state)._replace(step="read pause", held=held))


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
    return _send(scope, state, Insert("sent", Token(reader.owner, rows))) if rows else state


def _again(scope: Scope, state: State, at: int, _node: int) -> State:
    reader, left = _reader(state), state.left._replace(resends=state.left.resends - 1)
    return _send(scope, state._replace(left=left), Insert("sent", Token(reader.owner, reader.pieces[at])))


def _advance(state: State, reader: Reader) -> State:
    """Move the slot past the first pieces that are stored."""
    open_rows = _union(reader.pieces)
    confirmed = (open_rows & -open_rows).bit_length() - 1 if open_rows else reader.next
    return state._replace(reader=reader, confirmed=confirmed)


def _list(_scope: Scope, state: State, at: int, node: int) -> State:
    return _with_insert(state, at, _insert(state, at)._replace(stage="listed", node=node))


def _begin(scope: Scope, state: State, at: int, _node: int) -> State:
    insert = _insert(state, at)
    newest = newest_at(state, insert.node, sequential=scope.design.sequential_fence)
    stored = stored_at(state, insert.node, sequential=scope.design.sequential_inserts) & insert.token.rows
    match insert.push:
        case _ if newest > insert.token.owner:
            stage = "refused"
        case False if stored:
            stage = "told"
        case True if scope.design.guarded and _is_in_log(state, insert.token) and insert.token not in state.tokens:
            stage = "unsure"
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
        return _refuse(scope, _commit_entry(state, Entry("epoch", doubt.token.owner, 0, doubt.node)))
    return _commit_part(state, doubt.token, doubt.node)


def _vanish(_scope: Scope, state: State, at: int, _node: int) -> State:
    return state._replace(doubts=(*state.doubts[:at], *state.doubts[at + 1 :]))


def _answer_lost(scope: Scope, state: State, at: int, _node: int) -> State:
    insert, left = _insert(state, at), state.left._replace(drops=state.left.drops - 1)
    state = state._replace(left=left, tasks=(*state.tasks[:at], *state.tasks[at + 1 :]))
    state = state._replace(orphans=tuple(sorted((*state.orphans, insert))))
    return _send(scope, state, Insert("sent", insert.token))


def _tell(scope: Scope, state: State, at: int, _node: int) -> State:
    """Let a worker do what follows from the answer to its insert."""
    insert = _insert(state, at)
    state = state._replace(tasks=(*state.tasks[:at], *state.tasks[at + 1 :]))
    match insert.stage:
        case "stored":
            return _stored(state, insert.token)
        case "told" if scope.design.after_doubt == "look":
            return _stored(state, insert.token)
        case "told":
            return _send(scope, state, Insert("sent", insert.token, push=True))
        case "doubtful":
            return _after_doubt(scope, state, insert.token)
        case "unsure" if state.reader and state.reader.owner == insert.token.owner:
            return state._replace(reader=None)
    return state


def _after_doubt(scope: Scope, state: State, token: Token) -> State:
    match scope.design.after_doubt:
        case "report":
            return _stored(state, token)
        case "look":
            return _send(scope, state, Insert("sent", token))
        case "second token":
            return _send(scope, state, Insert("sent", token._replace(second=True), push=True))
    return _send(scope, state, Insert("sent", token, push=True))


def _stored(state: State, token: Token) -> State:
    reader = state.reader
    if reader is None or reader.owner != token.owner:
        return state
    return _advance(state, reader._replace(pieces=tuple(0 if p == token.rows else p for p in reader.pieces)))


def _forget(_scope: Scope, state: State, _at: int, _node: int) -> State:
    left = state.left._replace(forgets=state.left.forgets - 1)
    return state._replace(tokens=state.tokens - forgotten(state), left=left)


def _show(_scope: Scope, state: State, node: int, _choice: int) -> State:
    return state._replace(shown=tuple(n + (one == node) for one, n in enumerate(state.shown)))


def _send(scope: Scope, state: State, insert: Insert) -> State:
    return _refuse(scope, state._replace(tasks=tuple(sorted((*state.tasks, insert)))))


def _refuse(scope: Scope, state: State) -> State:
    """Drop the inserts that every node is going to refuse, which spares states."""
    newest = max((entry.owner for entry in state.log if entry.kind == "epoch"), default=0)
    if not scope.design.sequential_fence:
        return state

    def going_on(inserts: tuple[Insert, ...]) -> tuple[Insert, ...]:
        return tuple(i for i in inserts if i.token.owner >= newest or i.stage not in {"sent", "listed"})

    return state._replace(tasks=going_on(state.tasks), orphans=going_on(state.orphans))


def _insert(state: State, at: int) -> Insert:
    return (*state.tasks, *state.orphans)[at]


def _with_insert(state: State, at: int, insert: Insert) -> State:
    if at < len(state.tasks):
        return state._replace(tasks=tuple(sorted((*state.tasks[:at], insert, *state.tasks[at + 1 :]))))
    at -= len(state.tasks)
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
    return calm, asleep._replace(reader=None)


STEPS: dict[str, Callable[[Scope, State, int, int], State]] = {
    "open": _open,
    "lose slot": _lose_slot,
    "raise": _raise,
    "doubt epoch": _doubt_epoch,
    "read back": _read_back,
    "settle": _settle,
    "wait": _wait,
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
    "answer lost": _answer_lost,
    "tell": _tell,
    "forget": _forget,
    "show": _show,
    "pause": _pause,
    "resume": _resume,
}

_ORDER = (
    "begin, commit, list, tell, land late, show, resume, read back, raise, settle, wait, ask, read pause, cut, open"
)

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

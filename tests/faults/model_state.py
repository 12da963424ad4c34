"""Scope and design (tests/faults/model_design.py) -> the states that the model is in.

Pure. What is modelled are the orders in which things can happen; all clocks are gone. A worker that sleeps is one that
is not chosen, a dead one is never chosen again, a message that is late is not chosen yet. So is patience: whatever the
code does after a time may happen at any time. Rows are numbered in stream order; a set of rows is an integer whose
bit n stands for row n. A token is a hash of a batch's rows and of its sender, so here these are the token.

The table's partitions and its views get their parts of an insert one after the other, the views last; ClickHouse notes
the token of each part. A view's target has one part for each insert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.faults.model_design import Left, Scope

NOBODY = -1
VIEW = -1

# Stages of an insert: among the running queries, and over.
LISTED = frozenset({"listed", "running"})
ENDED = frozenset({"stored", "told", "unsure", "refused", "failed"})


class Batch(NamedTuple):
    """What a token is made of: the session, as `Design.token_of` has it, and the rows."""

    by: int
    rows: int


class Message(NamedTuple):
    """A Celery message; `again` if an earlier insert of the batch may have failed, where that matters."""

    epoch: int
    owner: int
    rows: int
    again: bool = False


class Insert(NamedTuple):
    """An INSERT statement.

    Its stage is one of

    - sent: its sender is about to send it, or it is on its way: ClickHouse cannot tell these apart
    - unlisted: has asked for the owner and is not listed yet; in a mutation only
    - listed: among the running queries, nothing asked yet
    - running: has asked for owner and positions; the parts of `left` are to land, then those of `views`
    - stored, told, unsure, refused, failed: at its end, its sender has not heard; told: some rows are stored already;
      unsure: the tokens that a push needs may be forgotten

    Its mode is one of

    - first: all of the batch, or nothing if some of it is stored
    - push: all of the batch; tokens keep out what is there
    - copy: the rows of the batch that are stored, for views that lack them
    """

    stage: str
    owner: int
    batch: Batch
    rows: int
    mode: str = "first"
    left: int = 0
    views: tuple[int, ...] = ()


class Task(NamedTuple):
    """A worker that has begun a task and fetched its payload, with the insert whose answer it waits for."""

    message: Message
    resent: bool
    insert: Insert


class Report(NamedTuple):
    """A line on the stored-list of an epoch. BEGUN and RETRYING only move clocks, so they are not here."""

    epoch: int
    outcome: str  # stored | missing | stale
    rows: int


# Queue, payloads and reports.
Redis = tuple[tuple[Message, ...], frozenset[int], tuple[Report, ...]]


class Piece(NamedTuple):
    """A piece the reader has handed on: rows of its batch, none once they are stored, and what is safe then."""

    rows: int
    safe: int


class Reader(NamedTuple):
    """A session, at the step that comes next: arm, raise, read back, settle, push, ask, stream.

    `todo` are the batches that it has yet to push; `sent` is the statement it waits for.
    """

    step: str
    owner: int
    epoch: int
    held: int
    next: int  # first row that is not in a piece yet
    flush: int  # transactions below the watermark
    pieces: tuple[Piece, ...]
    todo: tuple[Batch, ...] = ()
    sent: Insert | None = None


class State(NamedTuple):
    """Everything there is, at one moment; tuples of equals are sorted, since workers and messages have no names."""

    # Postgres
    confirmed: int  # transactions
    slot: int  # owner whose session streams
    # readers
    opened: int
    readers: tuple[Reader, ...]
    # Redis
    queue: tuple[Message, ...]
    payloads: frozenset[int]
    reports: tuple[Report, ...]
    copy: Redis | None
    # workers
    tasks: tuple[Task, ...]
    # ClickHouse
    newest: tuple[int, int]  # epoch, owner
    orphans: tuple[Insert, ...]  # inserts nobody waits for any more
    memory: frozenset[int]  # owners
    late: frozenset[int]  # owners whose row for the Memory table is on its way once more
    stored: int
    batches: tuple[tuple[Batch, int], ...]  # the table: each batch with its rows that are stored
    viewed: tuple[int, ...]  # rows of each view
    named: int  # rows that views may lack, as outhaul has said
    doubled: int
    tokens: frozenset[tuple[Batch, int]]  # of a batch in a partition; in view n as partition VIEW - n
    left: Left


def first(scope: Scope) -> State:
    """Return the state in which everything is committed and nobody has begun."""
    nothing: frozenset[int] = frozenset()
    return State(
        confirmed=0,
        slot=NOBODY,
        opened=0,
        readers=(),
        queue=(),
        payloads=nothing,
        reports=(),
        copy=None,
        tasks=(),
        newest=(0, NOBODY),
        orphans=(),
        memory=frozenset(),
        late=frozenset(),
        stored=0,
        batches=(),
        viewed=(0,) * scope.views,
        named=0,
        doubled=0,
        tokens=frozenset(),
        left=scope.left,
    )


def broken(scope: Scope, state: State) -> str | None:
    """Name the invariant that does not hold; None when all do."""
    if state.doubled:
        return f"rows {names(state.doubled)} are stored twice"
    passed = scope.passed(state.confirmed)
    if lost := passed & ~state.stored:
        return f"the slot has passed rows {names(lost)}, which ClickHouse lacks"
    for viewed in state.viewed:
        if lost := passed & ~viewed & ~state.named:
            return f"the slot has passed rows {names(lost)}, which a view lacks"
    return None


def done(scope: Scope, state: State) -> bool:
    """Tell whether every row is stored once, in the table and in each view, and the slot has passed them all."""
    everywhere = all(rows == scope.every for rows in (state.stored, *(viewed | state.named for viewed in state.viewed)))
    return everywhere and not state.doubled and state.confirmed == len(scope.transactions)


def stored_by(state: State, batch: Batch) -> int:
    """Return the rows of the table that carry this batch."""
    return next((rows for one, rows in state.batches if one == batch), 0)


def names(rows: int) -> str:
    """Return a set of rows as text."""
    return "{" + ",".join(str(n) for n in range(rows.bit_length()) if rows >> n & 1) + "}"

"""Scope (how much there is, how much may fail) and design -> the states that the model is in.

Pure. What is modelled are the orders in which things can happen; all clocks are gone. A worker that sleeps is one that
is not chosen, a dead one is never chosen again, a message that is late is not chosen yet. So is patience: whatever the
code does after a time may happen at any time. Rows are numbered in stream order; a set of rows is an integer whose
bit n stands for row n. A token is a hash of a batch's rows, so here the rows are the token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Literal, NamedTuple

NOBODY = -1

# Stages of an insert: among the running queries, and over.
LISTED = frozenset({"listed", "running"})
ENDED = frozenset({"stored", "refused", "failed"})


@dataclass(frozen=True, slots=True)
class Design:
    """What the code does; every field that is not as by default is a mutation."""

    token: bool = True
    # An insert leaves out the rows that are there when it begins.
    looks: bool = True
    fence: bool = True
    # The insert is listed among the running queries before it asks for the newest owner.
    listed_first: bool = True
    settle: bool = True
    ask: bool = True
    # The slot rests on commit ends, or on the transaction of the last row that is stored.
    commit_ends: bool = True
    moves_on: Literal["stored", "accepted"] = "stored"
    # The ledger sends batches again whose reports do not come.
    sends_again: bool = True
    # Tokens outlive the inserts that are running with them.
    window_outlasts_inserts: bool = True


class Left(NamedTuple):
    """How often each fault, and each thing that could happen without end, may still happen."""

    doubts: int = 0  # a batch is sent again though nothing says that it is lost
    losses: int = 0  # Redis loses everything
    repeats: int = 0  # the broker delivers a message twice, the second time flagged as redelivered
    copies: int = 0  # Redis saves a copy of itself, and some time later it is that copy (a restart, a failover)
    drops: int = 0  # a worker never hears the answer to its insert
    breaks: int = 0  # ClickHouse ends an insert between two parts: a restart, a limit
    forgets: int = 0  # the window forgets all tokens but those of running inserts
    raises: int = 0  # a reader that lost a race for the epoch tries again
    setbacks: int = 0  # Postgres crashes and has not kept the slot's last position


@dataclass(frozen=True)
class Scope:
    """How much there is of everything."""

    transactions: tuple[int, ...]  # rows of each
    partitions: tuple[int, ...]  # rows of each, as a set
    pieces: tuple[int, ...]  # how many rows a reader may cut off at once
    in_flight: int = 2
    sessions: int = 2
    # Names of the sessions' owners, in the order in which they begin; random in the code, so every order can happen.
    owners: tuple[int, ...] = (0, 1, 2, 3)
    # A reader that loses the slot goes on with what it has read; without, it dies. (Dying is going on never.)
    zombies: bool = True
    # What the fence will refuse ends at once, and with it the reader without a slot that it is of: the owner never
    # becomes the newest again, so only the time of the refusal differs. Spares nine states of ten.
    refused_at_once: bool = True
    left: Left = field(default_factory=Left)
    design: Design = field(default_factory=Design)

    @cached_property
    def rows(self) -> int:
        """How many rows are committed."""
        return sum(self.transactions)

    @cached_property
    def every(self) -> int:
        """All rows."""
        return (1 << self.rows) - 1

    @cached_property
    def first_row(self) -> tuple[int, ...]:
        """First row of each transaction, and one behind the last."""
        return (0, *accumulate(self.transactions))

    @cached_property
    def safe(self) -> tuple[int, ...]:
        """How many transactions may be confirmed when the first n rows are stored, for each n."""
        if self.design.commit_ends:
            return tuple(sum(end <= n for end in self.first_row[1:]) for n in range(self.rows + 1))
        return tuple(sum(begin < n for begin in self.first_row[:-1]) for n in range(self.rows + 1))

    def passed(self, confirmed: int) -> int:
        """Return the rows of the first `confirmed` transactions."""
        return (1 << self.first_row[confirmed]) - 1


class Message(NamedTuple):
    """A Celery message."""

    epoch: int
    owner: int
    rows: int


class Insert(NamedTuple):
    """An INSERT statement.

    Its stage is one of

    - sent: its worker is about to send it, or it is on its way: ClickHouse cannot tell these apart
    - unlisted: has asked for the owner and is not listed yet; in a mutation only
    - listed: among the running queries, nothing asked yet
    - running: has asked for owner and positions; the parts of `left` are to land
    - stored, refused, failed: at its end, its worker has not heard
    """

    stage: str
    owner: int
    rows: int
    left: int = 0


class Task(NamedTuple):
    """A worker that has begun a task and fetched its payload, with the insert whose answer it waits for."""

    epoch: int
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
    """A session, at the step that comes next: raise, read back, settle, ask, stream."""

    step: str
    owner: int
    epoch: int
    held: int
    next: int  # first row that is not in a piece yet
    flush: int  # transactions below the watermark
    pieces: tuple[Piece, ...]


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
    stored: int
    doubled: int
    tokens: frozenset[tuple[int, int]]  # of a batch in a partition
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
        stored=0,
        doubled=0,
        tokens=frozenset(),
        left=scope.left,
    )


def broken(scope: Scope, state: State) -> str | None:
    """Name the invariant that does not hold; None when all do."""
    if state.doubled:
        return f"rows {names(state.doubled)} are stored twice"
    lost = scope.passed(state.confirmed) & ~state.stored
    if lost:
        return f"the slot has passed rows {names(lost)}, which ClickHouse lacks"
    return None


def done(scope: Scope, state: State) -> bool:
    """Tell whether every row is stored once and the slot has passed them all."""
    return state.stored == scope.every and not state.doubled and state.confirmed == len(scope.transactions)


def names(rows: int) -> str:
    """Return a set of rows as text."""
    return "{" + ",".join(str(n) for n in range(rows.bit_length()) if rows >> n & 1) + "}"

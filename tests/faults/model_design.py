"""What the model's parts do, how much there is of everything, and how much may fail.

Pure. A `Design` with a field that is not as by default is a mutation: the code without one of its safeguards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class Design:
    """What the code does; every field that is not as by default is a mutation."""

    token: bool = True
    # What the first insert of a batch does if some of its rows are stored: it stores nothing and the worker is told so,
    # or it leaves them out, or it does not look.
    stored_rows: Literal["tell", "leave out", "ignore"] = "tell"
    # A worker that is told so pushes the batch as it is, or without the rows that are stored, or reports it as stored.
    when_told: Literal["whole", "missing rows", "report"] = "whole"
    # A worker that meets rows of another batch ends the session.
    minds_others: bool = True
    # Where it is seen that the tokens of a push may be forgotten: in its statement, or when its sender looks.
    guarded: Literal["in statement", "before", "no"] = "in statement"
    # If an earlier insert of the batch may have failed, a worker looks whether the rows are there before it reports.
    checks_rows: bool = True
    fence: bool = True
    # The statement that pushes a batch asks for the owner again.
    fences_pushes: bool = True
    # The insert is listed among the running queries before it asks for the newest owner.
    listed_first: bool = True
    settle: bool = True
    ask: bool = True
    # ClickHouse notes the token for each view, too.
    view_token: bool = True
    # The table's parts are in place before a view gets its part. ClickHouse does this; it is no rule of outhaul.
    table_first: bool = True
    # Recovery pushes the stored rows of each batch past the slot's position again, until every view has taken them.
    pushes: bool = True
    waits_for_views: bool = True
    # Inserts of an epoch from before a restart of ClickHouse are refused.
    memory: bool = True
    # The Memory table takes no owner that has raised its epoch already.
    armed_once: bool = True
    # What a token names besides the rows: a session, an epoch (two sessions may have raised the same), or nothing.
    token_of: Literal["owner", "epoch", "rows"] = "owner"
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
    breaks: int = 0  # ClickHouse ends an insert between two parts: a limit, a KILL
    refusals: int = 0  # a view refuses a block that the table has taken
    crashes: int = 0  # ClickHouse is killed, maybe between a token and its part, and starts again
    tears: int = 0  # ClickHouse fails between a token and its part, and runs on
    late_arms: int = 0  # the Memory table gets a reader's row a second time, late
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
    views: int = 0
    # A kill or failure may leave a view's token without its part, too; outhaul does not cover this.
    tears_views: bool = False
    # What the fence will refuse ends at once, and with it the reader without a slot that it is of: the owner never
    # becomes the newest again, so only the time of the refusal differs. Spares nine states of ten.
    refused_at_once: bool = True
    left: Left = field(default_factory=Left)
    design: Design = field(default_factory=Design)

    @cached_property
    def restarts(self) -> bool:
        """Whether ClickHouse may be killed; if not, the Memory table is left out, since it says yes to all."""
        return bool(self.left.crashes)

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

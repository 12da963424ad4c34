"""Recovery and fencing hold in every order of events, in small scopes; and every safeguard is there for a reason.

`MODEL_SCOPES=large` explores larger scopes as well, which takes minutes. Run with `-s` to see counts and traces.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.faults.model_search import Found, explore
from tests.faults.model_state import Design, Left, Scope

LARGE = os.environ.get("MODEL_SCOPES") == "large"

# Rows, transactions and partitions. A batch over two partitions can be half stored; one over two transactions can be
# whole where the slot may only pass one of them.
ROW = Scope(transactions=(1,), partitions=(0b1,), pieces=(1,), sessions=1)
BATCH = Scope(transactions=(2,), partitions=(0b01, 0b10), pieces=(2,), sessions=1)
TWO = Scope(transactions=(1, 1), partitions=(0b01, 0b10), pieces=(1, 2))
THREE = Scope(transactions=(2, 1), partitions=(0b101, 0b010), pieces=(1, 2))
# The next reader cuts in other places, so that tokens of the one before say nothing to it.
RECUT = replace(BATCH, pieces=(1, 2), sessions=2)
FOUR = Scope(transactions=(1, 3), partitions=(0b0101, 0b1010), pieces=(1, 3))
FORGETFUL = replace(BATCH, left=Left(doubts=1, forgets=1))

HOLDS = {
    "readers die at any point": replace(THREE, sessions=3, zombies=False),
    "readers die, a transaction is cut": replace(FOUR, zombies=False),
    "a replaced reader goes on": THREE,
    "two replaced readers go on": replace(TWO, sessions=3),
    "readers race for the epoch": replace(TWO, pieces=(2,), sessions=3, owners=(2, 1, 0), left=Left(raises=1)),
    "postgres forgets the last position": replace(TWO, pieces=(1,), sessions=3, left=Left(setbacks=1)),
    "a batch is given up too early": replace(TWO, left=Left(doubts=1)),
    "clickhouse ends inserts half-way": replace(TWO, pieces=(2,), left=Left(breaks=2)),
    "answers get lost": replace(TWO, pieces=(2,), left=Left(drops=2)),
    "redis loses everything": replace(TWO, pieces=(2,), left=Left(losses=1, doubts=1)),
    "redis comes back as an old copy": replace(TWO, pieces=(2,), left=Left(copies=1)),
    "the broker delivers twice": replace(TWO, pieces=(2,), left=Left(repeats=1, drops=1)),
    "much happens to one batch": replace(BATCH, left=Left(doubts=1, losses=1, repeats=1, breaks=1)),
    # A worker that sleeps between its decision and its insert wakes up when a later sending of its batch is forgotten.
    "tokens are forgotten, a batch is sent again": FORGETFUL,
    "tokens are forgotten, a message comes twice": replace(BATCH, left=Left(repeats=1, forgets=1)),
    "tokens are forgotten before a hidden re-send": replace(BATCH, left=Left(drops=1, forgets=1)),
    "tokens are forgotten, redis is an old copy": replace(BATCH, left=Left(copies=1, forgets=1)),
    "tokens are forgotten, inserts end half-way": replace(BATCH, left=Left(doubts=1, breaks=2, forgets=2)),
    "tokens are forgotten, replaced readers go on": replace(TWO, left=Left(forgets=1)),
    "tokens are forgotten, much happens": replace(BATCH, left=Left(doubts=1, repeats=1, drops=1, forgets=1)),
}

HOLDS_LARGE = {
    "readers die, four rows": replace(FOUR, pieces=(1, 2, 3), sessions=3, zombies=False),
    "replaced readers go on, three rows": replace(THREE, sessions=3),
    "readers race for the epoch, two rows": replace(TWO, sessions=3, owners=(2, 1, 0), left=Left(raises=1)),
    "replaced readers and doubts": replace(THREE, left=Left(doubts=1)),
    "replaced readers and broken inserts": replace(THREE, left=Left(breaks=1, drops=1)),
    "everything happens to one batch": replace(BATCH, left=Left(doubts=1, losses=1, repeats=1, drops=1, breaks=1)),
    "tokens are forgotten, replaced readers and doubts": replace(TWO, left=Left(doubts=1, forgets=1)),
}

# Scope in which a safeguard is taken away, and what goes wrong then.
MUTATIONS = {
    "no token": (replace(ROW, left=Left(doubts=1)), Design(token=False), "twice"),
    "no fence": (RECUT, Design(fence=False), "twice"),
    "the fence is asked before the insert is listed": (RECUT, Design(listed_first=False), "twice"),
    "recovery does not wait for running inserts": (RECUT, Design(settle=False), "twice"),
    "inserts do not look at positions": (FORGETFUL, Design(looks=False), "twice"),
    "neither recovery nor inserts look at positions": (RECUT, Design(ask=False, looks=False), "twice"),
    "tokens are forgotten while inserts run": (FORGETFUL, Design(window_outlasts_inserts=False), "twice"),
    "the slot rests inside a transaction": (replace(BATCH, pieces=(1,)), Design(commit_ends=False), "passed"),
    "accepted moves the slot": (ROW, Design(moves_on="accepted"), "passed"),
    "nothing is sent again": (replace(ROW, left=Left(losses=1)), Design(sends_again=False), "stands still"),
}


def look(scope: Scope) -> Found:
    found = explore(scope)
    print(found)
    return found


def scopes(*tables: dict[str, Scope]) -> pytest.MarkDecorator:
    table = {name: scope for table in tables for name, scope in table.items()}
    return pytest.mark.parametrize("scope", table.values(), ids=table)


@scopes(HOLDS)
def test_every_row_is_stored_once_in_every_order_of_events(scope: Scope) -> None:
    assert look(scope).trouble is None


@pytest.mark.skipif(not LARGE, reason="takes minutes: MODEL_SCOPES=large")
@pytest.mark.timeout(3600)
@scopes(HOLDS_LARGE)
def test_every_row_is_stored_once_in_larger_scopes(scope: Scope) -> None:
    assert look(scope).trouble is None


@pytest.mark.parametrize(("scope", "design", "trouble"), MUTATIONS.values(), ids=MUTATIONS)
def test_without_this_safeguard_rows_are_lost_or_repeated(scope: Scope, design: Design, trouble: str) -> None:
    assert look(scope).trouble is None
    found = look(replace(scope, design=design))
    assert found.trouble is not None
    assert trouble in found.trouble


@scopes({"one piece": replace(BATCH, sessions=2), "other pieces": RECUT})
def test_recovery_s_question_spares_work_and_inserts_that_look_keep_the_promise_without_it(scope: Scope) -> None:
    assert look(replace(scope, design=Design(ask=False))).trouble is None


def test_positions_do_not_replace_the_token() -> None:
    """Two inserts of a batch that run at once have both seen nothing; the token is what the second meets."""
    found = look(replace(ROW, left=Left(doubts=1), design=Design(token=False)))
    assert found.trouble is not None
    found = look(replace(ROW, left=Left(doubts=1, forgets=1), design=Design(window_outlasts_inserts=False)))
    assert found.trouble is not None


@scopes({"one piece": replace(BATCH, sessions=2), "other pieces": RECUT, "doubts": replace(ROW, left=Left(doubts=1))})
def test_refusing_at_once_what_the_fence_refuses_later_hides_nothing(scope: Scope) -> None:
    assert look(replace(scope, refused_at_once=False)).trouble is None
    unsettled = replace(RECUT, refused_at_once=False, design=Design(settle=False))
    assert explore(unsettled).trouble is not None

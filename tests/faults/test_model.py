"""Recovery and fencing hold in every order of events, in small scopes; and every safeguard is there for a reason.

`MODEL_SCOPES=large` explores larger scopes as well, which takes minutes. Run with `-s` to see counts and traces.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache

import pytest

from tests.faults.model_design import Design, Left, Scope
from tests.faults.model_pipeline import PIPELINE
from tests.faults.model_search import Found, explore

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
VIEW = replace(ROW, views=1)
VIEW_OF_BATCH = replace(BATCH, views=1)
VIEW_RECUT = replace(RECUT, views=1)
TAKEN_OVER = replace(VIEW, sessions=2)
HALF = replace(VIEW_OF_BATCH, left=Left(breaks=1))
REFUSED = replace(TAKEN_OVER, left=Left(refusals=1))
DIES = replace(ROW, sessions=2, left=Left(crashes=1))

HOLDS = {
    "readers die at any point": replace(THREE, sessions=3, zombies=False),
    "readers die, a transaction is cut": replace(FOUR, zombies=False),
    "a replaced reader goes on": THREE,
    "readers race for the epoch": replace(TWO, pieces=(2,), sessions=3, owners=(2, 1, 0), left=Left(raises=1)),
    "clickhouse ends inserts half-way": replace(TWO, pieces=(2,), left=Left(breaks=2)),
    "answers get lost": replace(TWO, pieces=(2,), left=Left(drops=2)),
    "redis loses everything": replace(TWO, pieces=(2,), left=Left(losses=1, doubts=1)),
    "redis comes back as an old copy": replace(TWO, pieces=(2,), left=Left(copies=1)),
    "much happens to one batch": replace(BATCH, left=Left(doubts=1, losses=1, repeats=1, breaks=1)),
    # A worker that sleeps between its decision and its insert wakes up when a later sending of its batch is forgotten.
    "tokens are forgotten, a batch is sent again": FORGETFUL,
    "tokens are forgotten, a message comes twice": replace(BATCH, left=Left(repeats=1, forgets=1)),
    "tokens are forgotten before a hidden re-send": replace(BATCH, left=Left(drops=1, forgets=1)),
    "tokens are forgotten, redis is an old copy": replace(BATCH, left=Left(copies=1, forgets=1)),
    "tokens are forgotten, inserts end half-way": replace(BATCH, left=Left(doubts=1, breaks=2, forgets=2)),
    "tokens are forgotten, replaced readers go on": replace(TWO, left=Left(forgets=1)),
    "tokens are forgotten, a batch and a message come twice": replace(BATCH, left=Left(doubts=1, repeats=1, forgets=1)),
    "clickhouse dies between token and part": replace(BATCH, sessions=2, left=Left(crashes=1)),
    "clickhouse dies twice": replace(ROW, sessions=2, left=Left(crashes=2)),
    "clickhouse dies, the next reader cuts elsewhere": replace(RECUT, left=Left(crashes=1)),
    "the memory table gets a reader once more": replace(ROW, sessions=2, left=Left(crashes=1, late_arms=1)),
    "clickhouse fails between token and part": replace(BATCH, sessions=2, left=Left(tears=1, breaks=1)),
    "a view": replace(TWO, views=1, pieces=(2,)),
    "a view of two batches refuses": replace(TWO, views=1, left=Left(refusals=1)),
    "a view of three rows, a reader is replaced": replace(THREE, views=1, zombies=False),
    "a view, a reader is replaced": VIEW_RECUT,
    "a view, two readers are replaced": replace(TAKEN_OVER, sessions=3, left=Left(refusals=1)),
    "a view refuses, inserts end half-way": replace(VIEW_OF_BATCH, left=Left(doubts=1, refusals=1, breaks=1)),
    "a view refuses, a reader is replaced": replace(VIEW_OF_BATCH, sessions=2, left=Left(refusals=1)),
    "two views, one refuses": replace(VIEW_OF_BATCH, views=2, sessions=2, left=Left(refusals=1)),
    "a view, inserts end half-way": replace(VIEW_OF_BATCH, sessions=2, left=Left(breaks=1)),
    "a view, clickhouse dies between token and part": replace(VIEW_OF_BATCH, sessions=2, left=Left(crashes=1)),
    "a view refuses, and clickhouse dies": replace(TAKEN_OVER, left=Left(refusals=1, crashes=1)),
    "a view, answers get lost, a message comes twice": replace(VIEW_OF_BATCH, left=Left(drops=1, repeats=1)),
    "a view, redis loses everything": replace(VIEW_OF_BATCH, left=Left(losses=1, doubts=1)),
    "a view refuses, tokens are forgotten": replace(TAKEN_OVER, left=Left(refusals=1, forgets=1)),
}

HOLDS_THOROUGH = {
    "the broker delivers twice": replace(TWO, pieces=(2,), left=Left(repeats=1, drops=1)),
    "a batch is given up too early": replace(TWO, left=Left(doubts=1)),
    "two replaced readers go on": replace(TWO, sessions=3),
    "postgres forgets the last position": replace(TWO, pieces=(1,), sessions=3, left=Left(setbacks=1)),
}

HOLDS_LARGE = {
    "readers die, four rows": replace(FOUR, pieces=(1, 2, 3), sessions=3, zombies=False),
    "replaced readers go on, three rows": replace(THREE, sessions=3),
    "readers race for the epoch, two rows": replace(TWO, sessions=3, owners=(2, 1, 0), left=Left(raises=1)),
    "replaced readers and doubts": replace(THREE, left=Left(doubts=1)),
    "replaced readers and broken inserts": replace(THREE, left=Left(breaks=1, drops=1)),
    "everything happens to one batch": replace(BATCH, left=Left(doubts=1, losses=1, repeats=1, drops=1, breaks=1)),
    "tokens are forgotten, replaced readers and doubts": replace(TWO, left=Left(doubts=1, forgets=1)),
    "tokens are forgotten, much happens": replace(BATCH, left=Left(doubts=1, repeats=1, drops=1, forgets=1)),
    "two views, two readers are replaced": replace(TAKEN_OVER, views=2, sessions=3, left=Left(refusals=1, breaks=1)),
    "a view, much happens": replace(TAKEN_OVER, left=Left(doubts=1, refusals=1, forgets=1, crashes=1)),
    "a view of a batch, clickhouse dies twice": replace(VIEW_OF_BATCH, sessions=2, left=Left(crashes=2, refusals=1)),
}

# Scope in which a safeguard is taken away, and what goes wrong then.
MUTATIONS = {
    "no token": (replace(ROW, left=Left(doubts=1)), Design(token=False), "twice"),
    "no fence": (RECUT, Design(fence=False), "twice"),
    "the fence is asked before the insert is listed": (RECUT, Design(listed_first=False), "twice"),
    "recovery does not wait for running inserts": (RECUT, Design(settle=False), "twice"),
    "inserts do not look at positions": (FORGETFUL, Design(stored_rows="ignore"), "twice"),
    "neither recovery nor inserts look at positions": (RECUT, Design(ask=False, stored_rows="ignore"), "twice"),
    "neither recovery nor inserts mind rows of others": (RECUT, Design(ask=False, minds_others=False), "twice"),
    "recovery does not ask what is stored": (RECUT, Design(ask=False), "goes round in circles"),
    "a batch some of whose rows are stored is taken for stored": (
        replace(BATCH, left=Left(breaks=1)),
        Design(when_told="report"),
        "passed",
    ),
    "a push does not ask for the owner": (replace(RECUT, left=Left(breaks=1)), Design(fences_pushes=False), "twice"),
    "a push relies on a token that is forgotten": (FORGETFUL, Design(guarded="no"), "twice"),
    "an epoch outlives a restart of clickhouse": (DIES, Design(memory=False), "passed"),
    "tokens do not name their sender": (DIES, Design(token_of="rows"), "passed"),
    "tokens name an epoch that two readers have raised": (DIES, Design(token_of="epoch"), "passed"),
    "the memory table takes a reader that has its epoch": (
        replace(DIES, left=Left(crashes=1, late_arms=1)),
        Design(armed_once=False),
        "passed",
    ),
    "a token without rows passes for the rows": (
        replace(ROW, sessions=2, left=Left(tears=1)),
        Design(checks_rows=False),
        "passed",
    ),
    "a worker that slept relies on a token that is forgotten": (
        FORGETFUL,
        Design(guarded="before"),
        "twice",
    ),
    "the view has no token": (replace(VIEW, left=Left(doubts=1)), Design(view_token=False), "twice"),
    "an insert leaves out the rows that are stored": (HALF, Design(stored_rows="leave out"), "a view lacks"),
    "a push leaves out the rows that are stored": (HALF, Design(when_told="missing rows"), "a view lacks"),
    "a push of a view relies on a token that is forgotten": (
        replace(VIEW, left=Left(doubts=1, forgets=1)),
        Design(guarded="no"),
        "twice",
    ),
    "recovery does not push stored rows again": (REFUSED, Design(pushes=False), "a view lacks"),
    "recovery does not wait for the views": (REFUSED, Design(waits_for_views=False), "a view lacks"),
    "recovery does not wait for running inserts, a view": (VIEW_RECUT, Design(settle=False), "a view lacks"),
    "a view gets its part before the table": (
        replace(TAKEN_OVER, left=Left(breaks=1)),
        Design(table_first=False),
        "twice",
    ),
    "tokens are forgotten while inserts run": (FORGETFUL, Design(window_outlasts_inserts=False), "twice"),
    "the slot rests inside a transaction": (replace(BATCH, pieces=(1,)), Design(commit_ends=False), "passed"),
    "accepted moves the slot": (ROW, Design(moves_on="accepted"), "passed"),
    "nothing is sent again": (replace(ROW, left=Left(losses=1)), Design(sends_again=False), "stands still"),
}


@cache
def look(scope: Scope) -> Found:
    found = explore(PIPELINE, scope)
    print(found)
    return found


def scopes(*tables: dict[str, Scope]) -> pytest.MarkDecorator:
    table = {name: scope for table in tables for name, scope in table.items()}
    return pytest.mark.parametrize("scope", table.values(), ids=table)


@scopes(HOLDS)
def test_every_row_is_stored_once_in_every_order_of_events(scope: Scope) -> None:
    assert look(scope).trouble is None


@pytest.mark.thorough
@scopes(HOLDS_THOROUGH)
def test_every_row_is_stored_once_in_scopes_of_a_second_or_two(scope: Scope) -> None:
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


def test_positions_do_not_replace_the_token() -> None:
    """Two inserts of a batch that run at once have both seen nothing; the token is what the second meets."""
    found = look(replace(ROW, left=Left(doubts=1), design=Design(token=False)))
    assert found.trouble is not None
    found = look(replace(ROW, left=Left(doubts=1, forgets=1), design=Design(window_outlasts_inserts=False)))
    assert found.trouble is not None


@pytest.mark.thorough
@scopes(
    {
        "one piece": replace(BATCH, sessions=2),
        "other pieces": RECUT,
        "doubts": replace(ROW, left=Left(doubts=1)),
        "a view": replace(TAKEN_OVER, left=Left(breaks=1)),
        "a restart": replace(TAKEN_OVER, left=Left(crashes=1)),
    }
)
def test_refusing_at_once_what_the_fence_refuses_later_hides_nothing(scope: Scope) -> None:
    assert look(replace(scope, refused_at_once=False)).trouble is None
    unsettled = replace(RECUT, refused_at_once=False, design=Design(settle=False))
    assert explore(PIPELINE, unsettled).trouble is not None


@scopes({"a kill": replace(DIES, views=1), "a failure": replace(ROW, views=1, sessions=2, left=Left(tears=1))})
def test_a_view_s_token_without_rows_is_not_covered(scope: Scope) -> None:
    """A view may then lack the batch, as docs/guarantees.md says."""
    found = look(replace(scope, tears_views=True))
    assert found.trouble is not None
    assert "a view lacks" in found.trouble

"""Recovery and fencing hold on replicas, in every order of events; and every rule for replicas is there for a reason.

No replicas run here: this is the model alone. Run with `-s` to see counts and traces.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.model_replicas import REPLICAS, Design, Left, Scope
from tests.faults.model_search import Found, explore

ONE = Scope(sessions=1)
TAKEN_OVER = Scope()
TWO = Scope(rows=2, pieces=(1, 2))

HOLDS = {
    "a reader is replaced": TWO,
    "two readers are replaced": replace(TWO, sessions=3),
    "a commit is in doubt": replace(TWO, left=Left(doubts=1)),
    "two commits are in doubt": replace(TAKEN_OVER, left=Left(doubts=2)),
    "a commit is in doubt, a batch is sent again": replace(ONE, left=Left(doubts=1, resends=1)),
    "an answer gets lost": replace(TWO, left=Left(drops=1)),
    "an answer gets lost, a commit is in doubt": replace(TAKEN_OVER, left=Left(drops=1, doubts=1)),
    "a batch is sent again, tokens are forgotten": replace(ONE, left=Left(resends=1, forgets=1)),
    "a commit is in doubt, tokens are forgotten": replace(TAKEN_OVER, left=Left(doubts=1, forgets=1)),
    "an operator pauses": replace(TAKEN_OVER, left=Left(pauses=1)),
}

# Scope in which a rule is taken away, and what goes wrong then.
MUTATIONS = {
    "running inserts are asked of one node": (TWO, Design(asks_all_nodes=False), "twice"),
    "the fence is read where it may be late": (TAKEN_OVER, Design(sequential_fence=False), "twice"),
    "recovery reads positions where they may be late": (TAKEN_OVER, Design(sequential_recovery=False), "twice"),
    "inserts read positions where they may be late": (
        replace(ONE, left=Left(resends=1, forgets=1)),
        Design(sequential_inserts=False),
        "twice",
    ),
    "a pause is read where it may be late": (
        replace(ONE, left=Left(pauses=1)),
        Design(sequential_pauses=False),
        "in a pause",
    ),
    "recovery does not wait for commits in doubt": (
        replace(TAKEN_OVER, left=Left(doubts=1)),
        Design(waits_for_doubts=False),
        "passed",
    ),
    "an epoch in doubt is read back": (
        replace(TAKEN_OVER, left=Left(doubts=1)),
        Design(raises_until_yes=False),
        "twice",
    ),
    "after a doubt a second token is used": (
        replace(ONE, left=Left(doubts=1)),
        Design(after_doubt="second token"),
        "twice",
    ),
    "after a doubt stored rows are left out": (replace(ONE, left=Left(doubts=1)), Design(after_doubt="look"), "passed"),
    "a doubt is taken for a yes": (replace(ONE, left=Left(doubts=1)), Design(after_doubt="report"), "passed"),
    "a push relies on a token that is forgotten": (
        replace(ONE, left=Left(resends=1, forgets=1)),
        Design(guarded=False),
        "twice",
    ),
}


def look(scope: Scope) -> Found:
    found = explore(REPLICAS, scope)
    print(found)
    return found


@pytest.mark.parametrize("scope", HOLDS.values(), ids=HOLDS)
def test_every_row_is_stored_once_on_replicas_in_every_order_of_events(scope: Scope) -> None:
    assert look(scope).trouble is None


@pytest.mark.parametrize(("scope", "design", "trouble"), MUTATIONS.values(), ids=MUTATIONS)
def test_without_this_rule_for_replicas_rows_are_lost_or_repeated(scope: Scope, design: Design, trouble: str) -> None:
    assert look(scope).trouble is None
    found = look(replace(scope, design=design))
    assert found.trouble is not None
    assert trouble in found.trouble


@pytest.mark.parametrize("scope", [TAKEN_OVER, replace(ONE, left=Left(doubts=1, resends=1))], ids=["replaced", "doubt"])
def test_nodes_that_lag_change_nothing_for_statements_that_wait(scope: Scope) -> None:
    assert look(replace(scope, lag=True)).trouble is None

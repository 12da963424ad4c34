"""Recovery and fencing hold on replicas, in every order of events; and every rule for replicas is there for a reason.

No replicas run here: this is the model alone. `MODEL_SCOPES=large` explores larger scopes as well. Run with `-s` to see
counts and traces.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache

import pytest

from tests.faults.model_replicas import REPLICAS, Design, Left, Scope
from tests.faults.model_search import Found, explore

LARGE = os.environ.get("MODEL_SCOPES") == "large"

ONE = Scope(sessions=1)
TAKEN_OVER = Scope()
TWO = Scope(rows=2, pieces=(1, 2))
DOUBT = replace(TAKEN_OVER, left=Left(doubts=1))
ONE_DOUBT = replace(ONE, left=Left(doubts=1))
FORGETFUL = replace(ONE, left=Left(resends=1, forgets=1))

HOLDS = {
    "two batches": replace(TWO, sessions=1),
    "a reader is replaced": TAKEN_OVER,
    "a commit is in doubt, a reader is replaced": DOUBT,
    "two commits are in doubt": replace(ONE, left=Left(doubts=2)),
    "a commit is in doubt, a batch is sent again": replace(ONE, left=Left(doubts=1, resends=1)),
    "an answer gets lost, a reader is replaced": replace(TAKEN_OVER, left=Left(drops=1)),
    "a commit is in doubt, an answer gets lost": replace(ONE, left=Left(doubts=1, drops=1)),
    "a batch is sent again, tokens are forgotten": FORGETFUL,
    "a commit is in doubt, tokens are forgotten": replace(ONE, left=Left(doubts=1, forgets=1)),
    "an operator pauses": replace(ONE, left=Left(pauses=1)),
}

HOLDS_LARGE = {
    "two readers are replaced": replace(TAKEN_OVER, sessions=3),
    "two batches, a reader is replaced": TWO,
    "two commits are in doubt, a reader is replaced": replace(TAKEN_OVER, left=Left(doubts=2)),
    "a commit is in doubt, two readers are replaced": replace(DOUBT, sessions=3),
    "much happens to one batch": replace(TAKEN_OVER, left=Left(doubts=1, resends=1, forgets=1)),
}

# Scope in which a rule is taken away, and what goes wrong then.
MUTATIONS = {
    "running inserts are asked of one node": (TAKEN_OVER, Design(asks_all_for_inserts=False), "twice"),
    "a node that lags may not refuse older inserts": (TAKEN_OVER, Design(waits_for_all_nodes=False), "twice"),
    "recovery asks one node for rows": (TAKEN_OVER, Design(asks_all_for_rows=False), "twice"),
    "one node is asked for pauses": (
        replace(ONE, left=Left(pauses=1)),
        Design(asks_all_for_pauses=False),
        "in a pause",
    ),
    "recovery does not push parts in doubt": (DOUBT, Design(pushes=False), "passed"),
    "recovery asks for rows before it pushes": (DOUBT, Design(pushes_first=False), "passed"),
    "a node pushes less than another shows": (DOUBT, Design(counts_rows=False), "passed"),
    "after a doubt a second token is used": (ONE_DOUBT, Design(after_doubt="second token"), "twice"),
    "after a doubt stored rows are left out": (ONE_DOUBT, Design(after_doubt="look"), "passed"),
    "a doubt is taken for a yes": (ONE_DOUBT, Design(after_doubt="report"), "passed"),
    "a push relies on a token that is forgotten": (FORGETFUL, Design(guarded=False), "twice"),
    "a token is forgotten before every node shows its part": (FORGETFUL, Design(tokens_outlast_lag=False), "twice"),
}


@cache
def look(scope: Scope) -> Found:
    found = explore(REPLICAS, scope)
    print(found)
    return found


@pytest.mark.parametrize("scope", HOLDS.values(), ids=HOLDS)
def test_every_row_is_stored_once_on_replicas_in_every_order_of_events(scope: Scope) -> None:
    assert look(scope).trouble is None


@pytest.mark.skipif(not LARGE, reason="takes minutes: MODEL_SCOPES=large")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scope", HOLDS_LARGE.values(), ids=HOLDS_LARGE)
def test_every_row_is_stored_once_on_replicas_in_larger_scopes(scope: Scope) -> None:
    assert look(scope).trouble is None


@pytest.mark.thorough
@pytest.mark.parametrize(("scope", "design", "trouble"), MUTATIONS.values(), ids=MUTATIONS)
def test_without_this_rule_for_replicas_rows_are_lost_or_repeated(scope: Scope, design: Design, trouble: str) -> None:
    assert look(scope).trouble is None
    found = look(replace(scope, design=design))
    assert found.trouble is not None
    assert trouble in found.trouble


def test_a_part_in_doubt_that_nobody_sees_any_more_is_not_covered() -> None:
    """A node is killed, and Keeper still commits the part: the next reader has stored its rows by then."""
    found = look(replace(DOUBT, hidden_doubts=True))
    assert found.trouble is not None
    assert "twice" in found.trouble

"""A view that refuses rows receives each event once when it is mended, in every order; and each step is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.model_gaps import GAPS, Design, Left, Scope
from tests.faults.model_search import Found, explore

ALONE = Scope(left=Left(tasks=1))
TWO = Scope(left=Left(tasks=2))
DIES = Scope(left=Left(tasks=1, deaths=1))

HOLDS = {
    "one task": ALONE,
    "two tasks": TWO,
    "a task or the reader dies": DIES,
    "two tasks, two deaths": Scope(left=Left(tasks=2, deaths=2)),
    "the view refuses all rows": Scope(refused=0b11, left=Left(tasks=2, deaths=1)),
    "the view refuses nothing": Scope(refused=0, left=Left(tasks=2, deaths=1)),
}

# Scope in which a step is taken away, and what goes wrong then.
MUTATIONS = {
    "a batch that is noted is sent again": (TWO, Design(refuses_noted=False), "twice"),
    "the reader does not wait for older statements": (TWO, Design(settles=False), "twice"),
    "the reader fills what the batch's token may have brought": (TWO, Design(sends_under_token=False), "twice"),
    "the rest is filled before the refused rows are noted": (DIES, Design(notes_rows_first=False), "twice"),
    "the rest is what the view takes at this moment": (ALONE, Design(leaves_out_noted=False), "twice"),
    "what the reader fills has no token": (DIES, Design(token=False), "twice"),
    "the batch is noted before the other views have it": (ALONE, Design(sends_to_others=False), "the other view lacks"),
}


def look(scope: Scope) -> Found:
    found = explore(GAPS, scope)
    print(found)
    return found


@pytest.mark.parametrize("scope", HOLDS.values(), ids=HOLDS)
def test_a_view_that_refuses_rows_has_each_once_in_every_order_of_events(scope: Scope) -> None:
    assert look(scope).trouble is None


@pytest.mark.parametrize(("scope", "design", "trouble"), MUTATIONS.values(), ids=MUTATIONS)
def test_without_this_step_a_view_lacks_or_repeats_rows(scope: Scope, design: Design, trouble: str) -> None:
    assert look(scope).trouble is None
    found = look(replace(scope, design=design))
    assert found.trouble is not None
    assert trouble in found.trouble

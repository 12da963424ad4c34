"""The load's plan is that of its seed, its pace that of the clock."""

from __future__ import annotations

from itertools import islice

import pytest

from outhaul.deploy.load.pace import Pace
from outhaul.deploy.load.transaction_plan import Ending, Plan, Range, Transaction, ranges, transactions
from outhaul.sink.errors import FatalError


def some(plan: Plan, writer: int = 0, count: int = 500) -> list[Transaction]:
    return list(islice(transactions(plan, writer), count))


def test_the_same_seed_and_writer_give_the_same_events_and_others_give_others() -> None:
    plan = Plan(sizes=(Range(1, 9),), rollback=0.3, keys=0.5)
    assert some(plan) == some(plan)
    assert some(plan) != some(plan, writer=1)
    keys = {event.key for writer in (0, 1) for one in some(plan, writer) for event in one.events if event.key}
    assert len(keys) == sum(
        event.key is not None for writer in (0, 1) for one in some(plan, writer) for event in one.events
    )


def test_sizes_and_shares_are_as_asked() -> None:
    plan = Plan(sizes=ranges("1:50,10-20:50", "sizes"), rollback=0.25, context_bytes=Range(100, 300), types=5)
    made = some(plan, count=2000)
    assert {len(one.events) for one in made} == {1, *range(10, 21)}
    assert 0.2 < sum(one.ending is not Ending.COMMIT for one in made) / len(made) < 0.3
    assert {one.ending for one in made} == set(Ending)
    events = [event for one in made for event in one.events]
    kinds = [event.type for event in events]
    assert kinds.count("load_0") > kinds.count("load_4") > 0
    assert all(70 <= len(event.context_json) <= 320 for event in events)


@pytest.mark.parametrize("rollback", [0.0, 0.9])
def test_just_so_many_events_are_committed(rollback: float) -> None:
    plan = Plan(sizes=(Range(7, 50),), rollback=rollback)
    made = list(transactions(plan, 0, 1000))
    assert sum(len(one.events) for one in made if one.ending is not Ending.ROLLBACK) == 1000


@pytest.mark.parametrize("text", ["", "0", "5-1", "x", "1:", "1:x", "1,,2"])
def test_an_invalid_size_is_an_error_that_says_what_to_write(text: str) -> None:
    if text == "1:":
        assert ranges(text, "--transaction") == (Range(1, 1),)
        return
    with pytest.raises(FatalError, match="Write 10, or 1-100"):
        ranges(text, "--transaction")


def test_a_pace_neither_drifts_nor_floods() -> None:
    pace = Pace(100, now=0.0)
    assert pace.wait_s(50, 0.0) == 0.0
    assert pace.wait_s(50, 0.1) == pytest.approx(0.4)
    # Late by a little is caught up with; late by much is not.
    assert pace.wait_s(10, 1.5) == 0.0
    assert pace.wait_s(200, 100.0) == 0.0
    assert pace.wait_s(1, 100.0) == pytest.approx(1.0)
    assert Pace(0, now=0.0).wait_s(1000, 0.0) == 0.0

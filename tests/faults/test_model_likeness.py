"""What the model does by itself is what the code does: watermark, held rows, ends of commits, sendings and tokens."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from outhaul.cdc_reader.capture.assemble import Assembled
from outhaul.cdc_reader.capture.stored_positions import StoredPositions
from outhaul.cdc_reader.session import recovery
from outhaul.cdc_reader.session.ledger import Ledger, Phase
from outhaul.cdc_reader.session.watermark import Watermark
from outhaul.sink import fence, insert, push_again
from outhaul.sink.insert import batch_number
from outhaul.sink.position import Lsn
from outhaul.sink.sql import query
from tests.faults.model_actions import Action, actions, inserts
from tests.faults.model_design import Scope
from tests.faults.model_state import Batch, State, first
from tests.faults.model_steps import step
from tests.unit.batches import batch_of, message_of

SCOPE = Scope(transactions=(2, 3, 1, 2), partitions=(0b01011001, 0b10100110), pieces=(1, 2, 3), in_flight=4, sessions=1)

INSERTS = {"list", "begin", "land"}


def streaming() -> State:
    state = first(SCOPE)
    for name in ("open", "raise", "read back", "settle", "ask"):
        state = step(SCOPE, state, Action(name))
    return state


@pytest.mark.parametrize("seed", range(20))
def test_the_model_s_watermark_moves_as_ours_does(seed: int) -> None:
    random, state = Random(seed), streaming()
    ours, number_of, sequence = Watermark(Lsn(0)), dict[int, int](), 0
    while options := list(actions(SCOPE, state)):
        action = random.choice(options)
        before, state = state, step(SCOPE, state, action)
        if action.name == "cut":
            rows = before.readers[0].next + action.choice
            mask = (1 << rows) - (1 << before.readers[0].next)
            number_of[mask] = sequence
            ours.add_group()
            ours.decoded([sequence], Lsn(sum(end <= rows for end in SCOPE.first_row[1:])))
            sequence += 1
        elif action.name == "hear":
            ours.stored(number_of[before.reports[action.choice].rows])
        assert state.readers[0].flush == ours.confirmed
        assert len(state.readers[0].pieces) == ours.in_flight
    assert ours.confirmed == len(SCOPE.transactions)


@pytest.mark.parametrize("stored", range(0, 1 << SCOPE.rows, 7))
def test_the_model_s_recovery_leaves_out_what_ours_does(stored: int) -> None:
    positions = [(lsn, n) for lsn, size in enumerate(SCOPE.transactions) for n in range(size)]
    held = [position for row, position in enumerate(positions) if stored >> row & 1]
    lsn, ordinal = (np.array([position[i] for position in held], np.uint64) for i in (0, 1))
    every_lsn, every_ordinal = (np.array([position[i] for position in positions], np.uint64) for i in (0, 1))
    missing = StoredPositions(lsn, ordinal, ordinal).missing(every_lsn, every_ordinal)
    ours = sum(1 << row for row in range(SCOPE.rows) if missing[row])
    state = streaming()
    reader = state.readers[0]._replace(held=stored)
    state = state._replace(readers=(reader,))
    everything = replace(SCOPE, pieces=(SCOPE.rows,))
    sent = step(everything, state, Action("cut", 0, SCOPE.rows)).queue
    assert sum(message.rows for message in sent) == ours


def test_every_sending_of_a_batch_but_the_first_has_a_higher_attempt_and_the_same_token() -> None:
    ledger, batch = Ledger(120.0), batch_of([1])
    ledger.add(message_of(batch, 0), Assembled(batch, None, np.array([0])), 0.0)
    sendings = [ledger.entries[0].message]
    for _ in range(3):
        ledger.note(0, Phase.SENT, now=0.0)
        entry = ledger.mark_for_resend(0)
        assert entry is not None
        sendings.append(entry.message)
    assert all(late.attempt > early.attempt for early, late in pairwise(sendings))
    assert {message.token for message in sendings} == {batch.token}


def test_recovery_takes_the_model_s_steps_in_the_same_order() -> None:
    """A session begins when a view lacks a batch."""
    scope = replace(SCOPE, views=1, sessions=2)
    batch = Batch(by=0, rows=0b11)
    tokens = frozenset((batch, n) for n, partition in enumerate(scope.partitions) if batch.rows & partition)
    state = first(scope)._replace(stored=batch.rows, batches=((batch, batch.rows),), tokens=tokens)
    state, steps = step(scope, state, Action("open")), list[str]()
    while (reader := state.readers[0]).step != "stream":
        steps.append(reader.step)
        state = step(scope, state, Action(reader.step))
        if reader.step == "push":
            while (sent := inserts(state)[0]).stage != "stored":
                state = step(scope, state, next(one for one in actions(scope, state) if one.name in INSERTS))
            assert sent.batch == batch
            state = step(scope, state, Action("tell"))
    ours = {"fenced": "raise", "settled": "settle", "asked": "ask", "pushed": "push"}
    reached = re.findall(r'reach\("recovery\.(\w+)"\)', inspect.getsource(recovery.recover))
    assert [ours[name] for name in reached if name in ours] == [name for name in steps if name in ours.values()]


def test_the_owner_is_in_the_memory_table_before_its_epoch_is_raised_and_only_then() -> None:
    """The model: *arm* before *raise*, and a late copy of *arm* is refused."""
    source = inspect.getsource(fence.raise_epoch)
    assert source.index('query("add_owner"') < source.index('query("raise_epoch"')
    added = query("add_owner", owners="owners", epochs="epochs")
    assert re.search(r"WHERE \(SELECT count\(\) FROM `epochs` WHERE .* owner = \{owner:String\}\) = 0", added)


def test_first_inserts_and_pushes_ask_for_the_owner_and_the_memory_table() -> None:
    guard = query("fence", epochs="epochs", owners="owners")
    assert guard.count("throwIf") == 2
    assert "FROM `owners`" in guard
    named = {"table": "t", "columns": "c", "fence": guard}
    push = query("push_again", **named, conditions="")
    first_insert = query("insert", **named, expressions="c", structure="''", unless_stored="")
    for text in (first_insert, push):
        assert guard in text
        assert text.index("WHERE") < text.index(guard)


def test_a_token_names_its_owner_and_is_the_same_whenever_the_owner_sends_the_batch() -> None:
    message = message_of(batch_of([1]))
    assert batch_number(message) == batch_number(replace(message, attempt=7, sequence=3))
    others = (replace(message, owner="you"), replace(message, epoch=2), message_of(batch_of([1, 2])))
    assert batch_number(message) not in {batch_number(other) for other in others}


def test_a_push_of_a_batch_asks_in_its_statement_whether_its_token_may_be_forgotten() -> None:
    """The model: guarded "in statement"; and rows of another batch refuse it."""
    assert "'outhaul: forgotten'" in query("refuse_old", table="t")
    assert "'outhaul: noted'" in query("refuse_noted", view_gaps="gaps")
    assert "refuse_noted" in inspect.getsource(insert._send_again)
    assert inspect.getsource(insert._send_again).count("refuse_old") == 1
    assert "by_others=True" in inspect.getsource(insert._send_again)
    assert "refuse_old" in inspect.getsource(push_again.push_again)

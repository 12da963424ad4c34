"""What was sent and not answered is sent again when it seems to be lost, and not before."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from outhaul.cdc_reader.capture.assemble import Assembled
from outhaul.cdc_reader.session.ledger import Ledger, Phase, TaskHealth
from tests.unit.batches import batch_of, message_of


def ledger_with(*sequences: int) -> Ledger:
    ledger = Ledger(120.0)
    for sequence in sequences:
        batch = batch_of([sequence])
        ledger.add(message_of(batch, sequence), Assembled(batch, None, np.array([sequence * 1_000_000])), 0.0)
    return ledger


def phase_of(ledger: Ledger, sequence: int) -> Phase:
    return ledger.entries[sequence].phase


IDLE = TaskHealth(0, frozenset())
BUSY = TaskHealth(9, frozenset())


def test_an_unanswered_message_is_sent_again_once_and_only_after_it_was_sent() -> None:
    ledger = ledger_with(0, 1)
    assert ledger.decide_resends(1e9, IDLE) == []
    ledger.note(0, Phase.SENT, now=10.0)
    assert ledger.decide_resends(14.9, IDLE) == []
    assert ledger.decide_resends(15.0, IDLE) == [0]
    entry = ledger.mark_for_resend(0)
    assert entry is not None
    assert entry.message.attempt == 1
    assert ledger.mark_for_resend(0) is None
    assert ledger.decide_resends(1e9, IDLE) == []


def test_patience_doubles_with_every_sending_up_to_its_bound() -> None:
    ledger = ledger_with(0)
    waits = []
    for _ in range(8):
        ledger.note(0, Phase.SENT, now=0.0)
        waits.append(next(n for n in range(1000) if ledger.decide_resends(float(n), IDLE)))
        ledger.mark_for_resend(0)
    assert waits == [5, 10, 20, 40, 80, 120, 120, 120]


def test_a_message_that_may_still_be_queued_is_left_alone_until_the_limit() -> None:
    ledger = ledger_with(0)
    for _ in range(3):
        ledger.note(0, Phase.SENT, now=0.0)
        assert ledger.decide_resends(119.9, BUSY) == []
        assert ledger.decide_resends(120.0, BUSY) == [0]
        ledger.mark_for_resend(0)


def test_a_batch_whose_worker_shows_no_sign_of_life_is_sent_again_at_once() -> None:
    ledger = ledger_with(0)
    token = ledger.entries[0].message.token
    ledger.note(0, Phase.SENT, now=0.0)
    ledger.note(0, Phase.BEGUN, now=1.0)
    assert ledger.begun_tokens == {token}
    assert ledger.decide_resends(1e6, TaskHealth(0, frozenset([token]))) == []
    assert ledger.decide_resends(2.9, IDLE) == []
    assert ledger.decide_resends(3.0, IDLE) == [0]


def test_a_retrying_task_gets_the_time_it_asked_for() -> None:
    ledger = ledger_with(0)
    ledger.note(0, Phase.SENT, now=0.0)
    ledger.note(0, Phase.RETRYING, now=0.0, wait_s=30.0)
    assert ledger.decide_resends(34.9, IDLE) == []
    assert ledger.decide_resends(35.0, IDLE) == [0]


def test_words_of_an_earlier_sending_do_not_count_for_the_next() -> None:
    ledger = ledger_with(0)
    ledger.note(0, Phase.SENT, now=0.0)
    ledger.mark_for_resend(0)
    ledger.note(0, Phase.BEGUN, now=1.0)
    assert phase_of(ledger, 0) is Phase.WAITING
    ledger.note(0, Phase.SENT, now=2.0)
    ledger.note(0, Phase.BEGUN, now=3.0)
    ledger.note(0, Phase.SENT, now=4.0)
    assert phase_of(ledger, 0) is Phase.BEGUN


def test_only_the_batch_that_was_announced_settles() -> None:
    ledger = ledger_with(3)
    token = ledger.entries[3].message.token
    assert ledger.remove(3, "another") is None
    assert ledger.remove(4, token) is None
    assert ledger.oldest_commit_us() == 3_000_000
    assert ledger.remove(3, token) is not None
    assert ledger.oldest_commit_us() is None


def test_a_refused_batch_rests_the_longer_the_more_often_and_is_no_lost_one() -> None:
    ledger = ledger_with(0)
    rests, now = [], 0.0
    for _ in range(6):
        ledger.note(0, Phase.SENT, now)
        rests.append(ledger.refused(0, now))
        # Whatever waits in the queue, this batch is not among it.
        assert ledger.decide_resends(now + rests[-1] - 0.1, BUSY) == []
        now += rests[-1]
        assert ledger.decide_resends(now, BUSY) == [0]
        assert ledger.mark_for_resend(0) is not None
    assert rests == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    ledger.note(0, Phase.SENT, now)
    assert ledger.decide_resends(now + 5, IDLE) == [0]


def test_a_refusal_that_overtakes_the_broker_s_word_counts_and_one_of_another_sending_does_not() -> None:
    ledger = ledger_with(0)
    assert ledger.refused(0, 1.0) == 1.0
    ledger.note(0, Phase.SENT, now=2.0)
    assert phase_of(ledger, 0) is Phase.REFUSED
    assert ledger.decide_resends(3.0, BUSY) == [0]
    assert ledger.mark_for_resend(0) is not None
    ledger.note(0, Phase.SENT, now=3.0)
    ledger.note(0, Phase.BEGUN, now=4.0)
    assert ledger.refused(0, 5.0) == 0.0
    assert phase_of(ledger, 0) is Phase.BEGUN
    assert ledger.refused(7, 5.0) == 0.0


def test_while_others_are_stored_a_refused_batch_rests_no_longer_than_a_second() -> None:
    ledger = ledger_with(0, 1, 2)
    for _ in range(4):
        for sequence in (0, 1):
            ledger.note(sequence, Phase.SENT, 0.0)
            rest = ledger.refused(sequence, 0.0)
            ledger.mark_for_resend(sequence)
    assert rest == 4.0
    ledger.note(0, Phase.SENT, 0.0)
    assert ledger.refused(0, 0.0) == 4.0
    assert ledger.remove(2, ledger.entries[2].message.token)
    assert ledger.decide_resends(1.0, BUSY) == [0]
    ledger.note(1, Phase.SENT, 0.0)
    assert ledger.refused(1, 0.0) == 1.0


def test_another_thread_may_ask_which_batches_are_begun_while_batches_come_and_go() -> None:
    ledger = ledger_with(0)
    ledger.note(0, Phase.SENT, now=0.0)
    ledger.note(0, Phase.BEGUN, now=0.0)
    stays, goes = (batch_of([sequence]) for sequence in (0, 1))
    done = threading.Event()
    seen: set[frozenset[str]] = set()

    def ask() -> None:
        while not done.is_set():
            seen.add(ledger.begun_tokens)

    asking = ThreadPoolExecutor(1)
    asked = asking.submit(ask)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for sequence in range(1, 20_000):
            message = message_of(goes, sequence)
            ledger.add(message, Assembled(goes, None, np.array([1_000_000])), 0.0)
            ledger.note(sequence, Phase.SENT, now=0.0)
            ledger.note(sequence, Phase.BEGUN, now=0.0)
            ledger.remove(sequence, message.token)
    finally:
        sys.setswitchinterval(interval_s)
        done.set()
        asking.shutdown()
    asked.result()
    both = frozenset({message_of(stays, 0).token, message_of(goes, 1).token})
    assert ledger.begun_tokens < both
    assert seen <= {ledger.begun_tokens, both}

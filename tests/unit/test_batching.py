"""Small batches when idle, large ones under load, and never more in flight than allowed; pieces of one size."""

from array import array

import pytest

from outhaul.cdc_reader.capture.batching import (
    PIECE_BYTES,
    Cut,
    Filling,
    Limits,
    Load,
    decide_cut,
    due_at,
    is_full,
    room,
)
from outhaul.cdc_reader.capture.frame import Run

LIMITS = Limits(max_rows=10, max_bytes=1000, linger_s=0.2, max_in_flight=3)
WIDE = Limits(max_rows=10**6, max_bytes=16 * PIECE_BYTES, linger_s=0.2, max_in_flight=3)


def filling(frames: int = 1, size: int = 10, since: float = 0.0, begun_at: float = 0.0) -> Filling:
    run = Run(bytearray(size), array("q", [size // frames] * frames))
    return Filling(run, begun_at=begun_at, since=since)


def cut(made: Filling, load: Load, now: float, limits: Limits = LIMITS, *, room: bool = True) -> Cut:
    return decide_cut(made, limits, load, now, decoder_has_room=room)


def test_batches_end_a_linger_apart() -> None:
    assert cut(filling(since=0.1), Load(), now=0.19) is Cut.NOTHING
    assert cut(filling(since=0.1), Load(), now=0.2) is Cut.BATCH


def test_a_row_that_comes_after_a_rest_waits_only_for_the_rest_of_its_transaction() -> None:
    assert due_at(filling(since=7.0), LIMITS, Load()) == pytest.approx(7.02)
    assert due_at(Filling(filling().run, since=7.0), LIMITS, Load()) == pytest.approx(7.02)


def test_age_counts_from_the_first_frame_of_the_first_piece() -> None:
    made = filling(since=1.0)
    made.take_piece()
    assert due_at(made, LIMITS, Load()) == pytest.approx(1.02)


def test_the_more_is_in_flight_the_longer_a_batch_fills() -> None:
    assert cut(filling(), Load(in_flight=2), now=0.59) is Cut.NOTHING
    assert cut(filling(), Load(in_flight=2), now=0.61) is Cut.BATCH


@pytest.mark.parametrize(
    ("load", "wait_s"),
    [
        (Load(lag_s=4.0, busy=True), 1.0),
        (Load(lag_s=3600.0, busy=True), 2.0),  # the upper bound
        (Load(lag_s=0.5, busy=True), 0.2),  # a burst of fresh rows
        (Load(lag_s=4.0), 0.2),  # the end of a backlog: nothing more comes, so nothing is waited for
        (Load(lag_s=-60.0, busy=True), 0.2),  # a clock that is behind
    ],
)
def test_rows_that_are_late_wait_for_company_while_more_crowd_in(load: Load, wait_s: float) -> None:
    assert due_at(filling(), LIMITS, load) == wait_s


def test_a_full_batch_goes_at_once_while_there_is_room() -> None:
    for full in (filling(frames=10), filling(size=1000)):
        assert is_full(full, LIMITS)
        assert cut(full, Load(in_flight=2), now=0.0) is Cut.BATCH
        assert cut(full, Load(in_flight=3), now=99.0) is Cut.NOTHING
        assert cut(full, Load(), now=99.0, room=False) is Cut.NOTHING


def test_an_empty_batch_is_never_handed_on() -> None:
    assert due_at(Filling(), LIMITS, Load()) == float("inf")
    assert cut(Filling(), Load(), now=99.0) is Cut.NOTHING


def test_a_read_takes_no_more_than_piece_and_batch_have_room_for() -> None:
    """One read may return thousands of frames: what it may take is told beforehand."""
    assert room(Filling(), LIMITS) == (1000, 10)
    assert room(filling(frames=4, size=40), LIMITS) == (960, 6)
    assert min(room(filling(frames=10), LIMITS)) == 0
    assert room(Filling(), WIDE) == (PIECE_BYTES, 10**6)
    made = filling(size=PIECE_BYTES)
    assert min(room(made, WIDE)) == 0
    made.take_piece()
    assert room(made, WIDE) == (PIECE_BYTES, 10**6 - 1)


def test_a_batch_of_many_pieces_hands_each_on_and_ends_with_the_last() -> None:
    made = filling(size=PIECE_BYTES)
    assert cut(made, Load(in_flight=3), now=99.0, limits=WIDE) is Cut.PIECE
    made.take_piece()
    assert cut(made, Load(in_flight=3), now=99.0, limits=WIDE) is Cut.NOTHING
    assert cut(made, Load(), now=99.0, limits=WIDE) is Cut.BATCH
    assert (made.frames, made.size) == (1, PIECE_BYTES)

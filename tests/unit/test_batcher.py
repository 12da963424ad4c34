"""Small pieces when idle, large ones under load, and never more in flight than allowed."""

from array import array

from cdc_reader.batcher import Limits, Piece, decide_cut, due_at, is_full, room
from cdc_reader.frame import Run

LIMITS = Limits(max_rows=10, max_bytes=1000, linger_s=0.2, max_in_flight=3)


def run(frames: int, size: int) -> Run:
    return Run(bytearray(size), array("q", [size // frames] * frames))


def piece(frames: int = 1, size: int = 10, since: float = 0.0) -> Piece:
    made = Piece()
    made.add(run(frames, size), since)
    return made


def test_a_lone_row_is_handed_on_after_the_linger() -> None:
    assert not decide_cut(piece(), LIMITS, in_flight=0, now=0.19)
    assert decide_cut(piece(), LIMITS, in_flight=0, now=0.2)


def test_age_counts_from_the_first_frame() -> None:
    made = piece(since=1.0)
    made.add(run(1, 10), 1.15)
    assert due_at(made, LIMITS, 0) == 1.2


def test_the_more_is_in_flight_the_longer_a_piece_fills() -> None:
    assert not decide_cut(piece(), LIMITS, in_flight=2, now=0.59)
    assert decide_cut(piece(), LIMITS, in_flight=2, now=0.61)


def test_a_full_piece_goes_at_once_while_there_is_room() -> None:
    for full in (piece(frames=10), piece(size=1000)):
        assert is_full(full, LIMITS)
        assert decide_cut(full, LIMITS, in_flight=2, now=0.0)
        assert not decide_cut(full, LIMITS, in_flight=3, now=99.0)


def test_an_empty_piece_is_never_handed_on() -> None:
    assert due_at(Piece(), LIMITS, 0) == float("inf")
    assert not decide_cut(Piece(), LIMITS, in_flight=0, now=99.0)


def test_a_piece_takes_no_more_than_is_left() -> None:
    """One read may return thousands of frames: what it may take is told beforehand."""
    assert room(Piece(), LIMITS) == (1000, 10)
    assert room(piece(frames=4, size=40), LIMITS) == (960, 6)
    assert min(room(piece(frames=10), LIMITS)) == 0

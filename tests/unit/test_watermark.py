"""The slot may only confirm what is stored: for every cut of the stream into pieces and every order of *stored*."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.session.watermark import Watermark
from outhaul.sink.position import Lsn

PIECES = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12)


@given(PIECES, st.randoms(use_true_random=False))
def test_confirmed_never_passes_an_unstored_batch_and_reaches_the_end(
    pieces: list[tuple[int, bool]], random: Random
) -> None:
    mark = Watermark(Lsn(100))
    batches_of: list[list[int]] = []
    safe_of: list[Lsn | None] = []
    unstored: set[int] = set()
    number = 0
    for at, (count, has_commit) in enumerate(pieces):
        mark.add_group()
        batches = list(range(number, number + count))
        number += count
        safe = Lsn(1000 + at) if has_commit else None
        mark.decoded(batches, safe)
        batches_of.append(batches)
        safe_of.append(safe)
        unstored.update(batches)
    order = sorted(unstored)
    random.shuffle(order)
    before = mark.confirmed
    for batch in order:
        assert mark.stored(batch)
        unstored.discard(batch)
        first_open = next((at for at, batches in enumerate(batches_of) if set(batches) & unstored), len(pieces))
        expected = max([Lsn(100), *(safe for safe in safe_of[:first_open] if safe is not None)])
        assert mark.confirmed == expected
        assert mark.confirmed >= before
        before = mark.confirmed
    assert mark.in_flight == 0
    assert mark.confirmed == max([Lsn(100), *(safe for safe in safe_of if safe is not None)])


def test_a_piece_without_rows_lets_an_idle_slot_move() -> None:
    mark = Watermark(Lsn(1))
    mark.add_group()
    mark.decoded([], Lsn(500))
    assert mark.confirmed == Lsn(500)


def test_a_keepalive_behind_an_unstored_batch_waits_for_it() -> None:
    mark = Watermark(Lsn(1))
    mark.add_group()
    mark.decoded([0], Lsn(400))
    mark.add_group()
    mark.decoded([], Lsn(500))
    assert mark.confirmed == Lsn(1)
    mark.stored(0)
    assert mark.confirmed == Lsn(500)


def test_a_piece_still_being_decoded_holds_back_later_ones() -> None:
    mark = Watermark(Lsn(1))
    mark.add_group()
    mark.add_group()
    mark.decoded([], None)
    assert mark.in_flight == 1
    assert mark.confirmed == Lsn(1)
    mark.decoded([], Lsn(9))
    assert mark.in_flight == 0
    assert mark.confirmed == Lsn(9)


def test_a_report_that_comes_twice_moves_nothing() -> None:
    mark = Watermark(Lsn(1))
    mark.add_group()
    mark.decoded([0, 1], Lsn(400))
    assert mark.stored(0)
    assert not mark.stored(0)
    assert mark.confirmed == Lsn(1)

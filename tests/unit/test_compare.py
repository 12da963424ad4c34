"""How a range of ids is divided: wherever it lies, nothing is left out or compared twice."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.outbox.compare import divided

LEAST, GREATEST = -(1 << 63), (1 << 63) - 1
IDS = st.integers(LEAST, GREATEST)


@given(IDS, IDS, st.integers(1, 64))
def test_the_parts_of_a_range_are_adjacent_and_not_longer_than_it(one: int, other: int, parts: int) -> None:
    first, last = min(one, other), max(one, other)
    found = divided(first, last, parts)
    assert 0 < len(found) <= parts
    assert (found[0][0], found[-1][1]) == (first, last)
    assert all(start <= end for start, end in found)
    assert all(left[1] + 1 == right[0] for left, right in pairwise(found))
    assert first == last or parts == 1 or len(found) > 1


def test_the_whole_of_bigint_has_parts() -> None:
    assert divided(LEAST, GREATEST, 2) == [(LEAST, -1), (0, GREATEST)]

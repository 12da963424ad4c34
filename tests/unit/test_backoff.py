"""A wait between two attempts has a floor and a cap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outhaul.sink.backoff import backoff_s


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_backoff_grows_to_its_cap_and_never_becomes_a_busy_loop(attempt: int, random: float) -> None:
    wait = backoff_s(attempt, max_s=30.0, random=random)
    assert 0.1 <= wait <= 30.0
    assert backoff_s(attempt + 1, max_s=30.0, random=random) >= wait


def test_backoff_doubles_until_its_cap() -> None:
    waits = [backoff_s(attempt, max_s=3.0, random=0.5) for attempt in range(1, 8)]
    assert waits == pytest.approx([0.15, 0.3, 0.6, 1.2, 2.25, 2.25, 2.25])

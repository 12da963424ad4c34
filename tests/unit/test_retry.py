"""A wait between two attempts has a floor and a cap."""

from hypothesis import given
from hypothesis import strategies as st

from sink.retry import backoff_s


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_backoff_grows_to_its_cap_and_never_becomes_a_busy_loop(attempt: int, random: float) -> None:
    wait = backoff_s(attempt, max_s=30.0, random=random)
    assert 0.1 <= wait <= 30.0
    assert backoff_s(attempt + 1, max_s=30.0, random=random) >= wait

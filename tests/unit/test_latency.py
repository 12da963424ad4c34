"""Quantiles from buckets are those of the values, within the width of a bucket."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cdc_reader.latency import Latencies


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=300))
def test_quantiles_are_within_a_bucket(values: list[float]) -> None:
    latencies = Latencies()
    latencies.observe(np.array(values))
    median = float(np.quantile(values, 0.5, method="inverted_cdf"))
    found = latencies.quantile(0.5)
    assert found is not None
    assert median <= found * 1.0001
    assert found <= max(median * 1.2001, 0.001)


def test_quantiles_of_nothing_are_unknown() -> None:
    assert Latencies().quantile(0.5) is None

"""Quantiles from buckets are those of the values, within the width of a bucket."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from outhaul.cdc_reader.metrics import BOUNDS_S, Latencies

NOW_US = 1_700_000_000_000_000
AGES = st.lists(st.floats(0.001, 1000), min_size=1, max_size=300)


def of(ages_s: list[float]) -> Latencies:
    latencies = Latencies()
    latencies.observe(NOW_US - np.round(np.array(ages_s) * 1e6).astype(np.int64), NOW_US)
    return latencies


@given(AGES)
def test_quantiles_are_within_a_bucket(ages_s: list[float]) -> None:
    median = float(np.quantile(ages_s, 0.5, method="inverted_cdf"))
    found = of(ages_s).quantile(0.5)
    assert found is not None
    assert median <= found * 1.001
    assert found <= max(median * 1.2011, 0.001)


@given(AGES, AGES)
def test_counts_and_sum_are_of_every_value_whatever_their_order(some: list[float], more: list[float]) -> None:
    latencies = of(some)
    latencies.observe(NOW_US - np.round(np.array(more) * 1e6).astype(np.int64), NOW_US)
    ages_us = np.round(np.array(some + more) * 1e6)
    bounds_us = np.round(BOUNDS_S * 1e6)
    assert latencies.counts.tolist() == np.bincount(np.searchsorted(bounds_us, ages_us), minlength=101).tolist()
    assert np.isclose(latencies.sum_s, ages_us.sum() / 1e6)


def test_a_clock_that_is_behind_makes_no_age_negative() -> None:
    latencies = Latencies()
    latencies.observe(np.array([NOW_US + 5_000_000]), NOW_US)
    assert (latencies.counts[0], latencies.sum_s) == (1, 0.0)


def test_quantiles_of_nothing_are_unknown() -> None:
    assert Latencies().quantile(0.5) is None

"""Names of metrics -> PromQL expressions for the pipelines in the dashboard's variable `source`.

Pure. A process may run more than once (a standby reader, two exporters), so gauges are joined by their maximum and
counters by their sum: one series per source.

Source: https://prometheus.io/docs/prometheus/latest/querying/basics/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def of(metric: str, **labels: str) -> str:
    """Return the selector of a metric; a value may be a regular expression."""
    matchers = ['source=~"$source"', *(f'{name}=~"{value}"' for name, value in labels.items())]
    return f"{metric}{{{', '.join(matchers)}}}"


def newest(metric: str, *by: str, **labels: str) -> str:
    """Return the current value of a gauge."""
    return f"max by ({', '.join(('source', *by))}) ({of(metric, **labels)})"


def total(metric: str, *by: str, **labels: str) -> str:
    """Return a gauge, summed over the labels that are not named; of two exporters, the larger sum."""
    inner = f"sum by ({', '.join(('source', 'instance', *by))}) ({of(metric, **labels)})"
    return f"max by ({', '.join(('source', *by))}) ({inner})"


def per_second(metric: str, *by: str, **labels: str) -> str:
    """Return how fast a counter of outhaul's processes grows."""
    return f"sum by ({', '.join(('source', *by))}) (rate({of(metric, **labels)}[$__rate_interval]))"


def server_per_second(metric: str, **labels: str) -> str:
    """Return how fast a counter of a server grows, which every exporter reports."""
    return f"max by (source) (rate({of(metric, **labels)}[$__rate_interval]))"


def times(metric: str, *by: str, process: str, **labels: str) -> str:
    """Return how often a rare event happened in each step; 0 while the process runs and it never happened."""
    happened = f"sum by ({', '.join(('source', *by))}) (increase({of(metric, **labels)}[$__rate_interval]))"
    return f"{happened} or on (source) {nothing_in(process)}"


def nothing_in(process: str) -> str:
    """Return 0 while the process runs, for a counter that has no series yet."""
    return f"0 * {newest('outhaul_build_info', process=process)}"


def quantile(share: float, metric: str) -> str:
    """Return a quantile of a histogram in each step."""
    buckets = f"rate({of(metric + '_bucket')}[$__rate_interval])"
    return f"histogram_quantile({share:g}, sum by (source, le) ({buckets}))"


def buckets(metric: str) -> str:
    """Return the counts of a histogram's buckets in each step, all sources together."""
    return f"sum by (le) (increase({of(metric + '_bucket')}[$__rate_interval]))"


def ratio(above: str, below: str) -> str:
    """Return a fraction; no value while the denominator is 0."""
    return f"{above} / ({below} > 0)"


def numbered(metric: str, label: str, values: Iterable[str], *by: str) -> str:
    """Return the number of the label's value that is set, from 1; if several are set, the highest."""
    each = [f"{number} * {of(metric, **{label: value})}" for number, value in enumerate(values, start=1)]
    return f"max by ({', '.join(('source', *by))}) ({' or '.join(each)})"

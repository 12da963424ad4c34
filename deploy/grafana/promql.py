"""Names of metrics -> PromQL expressions for the pipelines that the dashboard's variable `source` names.

Pure. A process may be there more than once (a reader that stands by, two exporters), so gauges are joined by their
maximum and counters by their sum: one series a source.

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
    """Return a gauge as it is now."""
    return f"max by ({', '.join(('source', *by))}) ({of(metric, **labels)})"


def total(metric: str, *by: str, **labels: str) -> str:
    """Return a gauge, added up over the labels that are not named; of two exporters the larger sum counts."""
    inner = f"sum by ({', '.join(('source', 'instance', *by))}) ({of(metric, **labels)})"
    return f"max by ({', '.join(('source', *by))}) ({inner})"


def per_second(metric: str, *by: str, **labels: str) -> str:
    """Return how fast a counter of a process of ours grows."""
    return f"sum by ({', '.join(('source', *by))}) (rate({of(metric, **labels)}[$__rate_interval]))"


def server_per_second(metric: str, **labels: str) -> str:
    """Return how fast a counter grows that a server keeps and every exporter sees."""
    return f"max by (source) (rate({of(metric, **labels)}[$__rate_interval]))"


def times(metric: str, *by: str, process: str, **labels: str) -> str:
    """Return how often something rare happened in each step; a plain 0 while the process runs and it never has."""
    happened = f"sum by ({', '.join(('source', *by))}) (increase({of(metric, **labels)}[$__rate_interval]))"
    return f"{happened} or on (source) {nothing_in(process)}"


def nothing_in(process: str) -> str:
    """Return 0 while the process runs: it has counted, and there was nothing to count."""
    return f"0 * {newest('outhaul_build_info', process=process)}"


def quantile(share: float, metric: str) -> str:
    """Return a quantile of a histogram in each step."""
    buckets = f"rate({of(metric + '_bucket')}[$__rate_interval])"
    return f"histogram_quantile({share:g}, sum by (source, le) ({buckets}))"


def buckets(metric: str) -> str:
    """Return the counts of a histogram's buckets in each step, all sources together."""
    return f"sum by (le) (increase({of(metric + '_bucket')}[$__rate_interval]))"


def ratio(above: str, below: str) -> str:
    """Return a fraction; no value while there is nothing below the line."""
    return f"{above} / ({below} > 0)"


def numbered(metric: str, label: str, values: Iterable[str], *by: str) -> str:
    """Return 1 for the first of a label's values that is set, 2 for the second ...; of several that are, the last."""
    each = [f"{number} * {of(metric, **{label: value})}" for number, value in enumerate(values, start=1)]
    return f"max by ({', '.join(('source', *by))}) ({' or '.join(each)})"

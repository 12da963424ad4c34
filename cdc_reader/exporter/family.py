"""Values -> metric families, as Prometheus' client library has them. Pure.

Source: https://prometheus.github.io/client_python/collector/custom/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sink.exposition import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client.metrics_core import Metric

Value = float | int | None


def gauge(name: str, what: str, value: Value) -> Metric:
    """Return one value; without a sample where it is None."""
    return _filled(GaugeMetricFamily(f"{PREFIX}{name}", what), {(): value})


def counter(name: str, what: str, value: Value) -> Metric:
    """Return one value that only grows, `_total` in its name; without a sample where it is None."""
    return _filled(CounterMetricFamily(f"{PREFIX}{name}", what), {(): value})


def gauges(name: str, what: str, label: str, values: Mapping[str, Value]) -> Metric:
    """Return a value for each of some few values of a label."""
    family = GaugeMetricFamily(f"{PREFIX}{name}", what, labels=[label])
    return _filled(family, {(of,): value for of, value in values.items()})


def counters(name: str, what: str, label: str, values: Mapping[str, Value]) -> Metric:
    """Return a value that only grows for each of some few values of a label."""
    family = CounterMetricFamily(f"{PREFIX}{name}", what, labels=[label])
    return _filled(family, {(of,): value for of, value in values.items()})


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[tuple[str, ...], Value]
) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, value in values.items():
        if value is not None:
            family.add_metric(labels, float(value))
    return family

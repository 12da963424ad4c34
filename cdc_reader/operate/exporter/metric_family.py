"""Values -> metric families of Prometheus' client library. Pure.

Source: https://prometheus.github.io/client_python/collector/custom/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from outhaul.sink.telemetry.exposition import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prometheus_client.metrics_core import Metric

Value = float | int | None


def gauge(name: str, what: str, value: Value) -> Metric:
    """Return one value; no sample if it is None."""
    return _filled(GaugeMetricFamily(f"{PREFIX}{name}", what), {(): value})


def counter(name: str, what: str, value: Value) -> Metric:
    """Return one value that only grows, with `_total` in its name; no sample if it is None."""
    return _filled(CounterMetricFamily(f"{PREFIX}{name}", what), {(): value})


def gauges(name: str, what: str, label: str, values: Mapping[str, Value]) -> Metric:
    """Return one value for each value of a label."""
    family = GaugeMetricFamily(f"{PREFIX}{name}", what, labels=[label])
    return _filled(family, {(of,): value for of, value in values.items()})


def counters(name: str, what: str, label: str, values: Mapping[str, Value]) -> Metric:
    """Return one value that only grows for each value of a label."""
    family = CounterMetricFamily(f"{PREFIX}{name}", what, labels=[label])
    return _filled(family, {(of,): value for of, value in values.items()})


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[tuple[str, ...], Value]
) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, value in values.items():
        if value is not None:
            family.add_metric(labels, float(value))
    return family


def of_source(metric: Metric, source: str) -> Metric:
    """Set the label `source` of a family's samples; the pipeline's own name is only added to samples without it."""
    metric.samples = [sample._replace(labels={"source": source, **sample.labels}) for sample in metric.samples]
    return metric


def merged(parts: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Join families of the same name, which must be served as one."""
    found: dict[str, Metric] = {}
    for metric in (metric for part in parts for metric in part):
        if metric.name in found:
            found[metric.name].samples += metric.samples
        else:
            found[metric.name] = metric
    return list(found.values())

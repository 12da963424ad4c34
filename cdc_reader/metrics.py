"""What the reader did -> Prometheus metrics.

Edge: prometheus-client's registry; no labels but reasons.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Gauge, start_http_server
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from cdc_reader.latency import BOUNDS_S, Latencies

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

CAPTURED = Counter("outhaul_reader_events_captured", "Rows decoded from the stream")
LEFT_OUT = Counter("outhaul_reader_events_left_out", "Rows that ClickHouse held already when they were streamed again")
STORED = Counter("outhaul_reader_events_stored", "Rows reported stored, dead letters included")
DEAD_LETTERS = Counter("outhaul_reader_dead_letters", "Rows reported set aside")
BATCHES = Counter("outhaul_reader_batches_stored", "Batches reported stored")
REDISPATCHES = Counter("outhaul_reader_redispatches", "Batches sent again", ["reason"])
SESSIONS = Counter("outhaul_reader_sessions", "Streaming sessions begun")
SESSION_ENDS = Counter("outhaul_reader_session_ends", "Streaming sessions ended, by class of the error", ["reason"])
HEALS = Counter("outhaul_reader_heals", "Copies of what a slot skipped, by how they ended", ["outcome"])
HEALED_ROWS = Counter("outhaul_reader_healed_rows", "Rows copied from the outbox because ClickHouse lacked them")
SLOT_CHANGES = Counter("outhaul_reader_slot_changes", "Slots given up or made anew by the reader", ["reason"])
IN_FLIGHT = Gauge("outhaul_reader_in_flight_batches", "Batches handed on and not stored")
LAG_SECONDS = Gauge("outhaul_reader_lag_seconds", "Age of the oldest commit that is not stored")
PAUSED = Gauge("outhaul_reader_paused", "1 while `outhaul pause` keeps the reader from taking rows")
LAG_BYTES = Gauge("outhaul_reader_lag_bytes", "WAL between what was received and what is confirmed")


class LatencyCollector(Collector):
    """Commit-to-stored latency, counted a batch at a time."""

    def __init__(self) -> None:
        """Start empty."""
        self.latencies = Latencies()

    def collect(self) -> Iterable[Metric]:
        """Yield the histogram, every fifth bucket."""
        cumulative = self.latencies.counts.cumsum()
        buckets = [(f"{BOUNDS_S[i]:.6g}", int(cumulative[i])) for i in range(0, len(BOUNDS_S), 5)]
        buckets.append(("+Inf", int(cumulative[-1])))
        yield HistogramMetricFamily(
            "outhaul_commit_to_stored_seconds",
            "From a row's commit to the report that ClickHouse has stored it",
            buckets=buckets,
            sum_value=self.latencies.sum_s,
        )


COMMIT_TO_STORED = LatencyCollector()
REGISTRY.register(COMMIT_TO_STORED)


def serve(port: int) -> None:
    """Serve /metrics on loopback; 0 is off."""
    if port:
        start_http_server(port, "127.0.0.1")

"""Counts and times of the reader -> Prometheus metrics.

Edge: a separate registry, so that a reader shows only its own metrics and not those of modules that it shares with
workers. Labels have few values. Values that are known in advance start at 0, since a rate needs a first value.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt
    from prometheus_client.metrics_core import Metric

REGISTRY = CollectorRegistry()

# A batch has from one to a hundred thousand events, and from some hundred bytes to some ten million.
_EVENTS = (1, 10, 100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 150_000, 1_000_000)
_BYTES = tuple(1024 * 4**power for power in range(10))

# Each bucket of latencies is a fifth wider than the one before: they are exact to ten per cent, need little memory, and
# can be added.
_FIRST_S = 0.001
_GROWTH = 1.2
_BUCKETS = 100  # up to about 23 hours
BOUNDS_S = _FIRST_S * _GROWTH ** np.arange(_BUCKETS)
_BOUNDS_US = np.round(BOUNDS_S * 1e6).astype(np.int64)


def _counter(name: str, what: str, **labels: tuple[str, ...]) -> Counter:
    made = Counter(f"outhaul_reader_{name}", what, [*labels], registry=REGISTRY)
    for label, values in labels.items():
        for value in values:
            made.labels(**{label: value})
    return made


def _gauge(name: str, what: str) -> Gauge:
    return Gauge(f"outhaul_reader_{name}", what, registry=REGISTRY)


CAPTURED = _counter("events_captured", "Events decoded from the stream")
CAPTURED_BYTES = _counter("bytes_captured", "Bytes read from the stream of Postgres")
LEFT_OUT = _counter("events_left_out", "Events streamed again that ClickHouse had already stored")
STRAY_MESSAGES = _counter(
    "messages_ignored", "Messages of pg_logical_emit_message(false, …) with the captured prefix: not captured"
)
STORED = _counter("events_stored", "Events reported stored, dead letters included")
STORED_BYTES = _counter("bytes_stored", "Bytes of compressed payload reported stored")
DEAD_LETTERED = _counter("events_dead_lettered", "Events that became dead letters")
BATCHES = _counter("batches_stored", "Batches reported stored")
_REASONS = ("silence", "redis", "missing", "copy", "other_version")
REDISPATCHES = _counter("redispatches", "Batches sent again", reason=_REASONS)
RETRIES = _counter("retries", "Attempts that a stage repeats", where=("recovery", "dispatch", "reports"))
REPORTS_REFUSED = _counter(
    "reports_refused", "Lines in the list of reports that no worker wrote", why=("unreadable", "forged")
)
SESSIONS = _counter("sessions", "Streaming sessions begun")
SESSION_ENDS = _counter("session_ends", "Streaming sessions ended, by class of the error", reason=("TransientError",))
TAKEOVERS = _counter("takeovers", "Sessions of silent readers that this one ended to take their slot")
HEALS = _counter("heals", "Copies of events that a slot skipped, by outcome", outcome=("done", "failed"))
HEALED = _counter("healed_events", "Events copied from the outbox because ClickHouse lacked them")
SLOT_CHANGES = _counter(
    "slot_changes",
    "Slots that the reader dropped or created again",
    reason=("slot_missing", "slot_unusable", "other_history", "parked"),
)
STAGES = _counter(
    "stage_seconds",
    "Seconds by stage, in three threads: wait and read, decode and pack, dispatch",
    stage=("wait", "read", "decode", "pack", "dispatch"),
)
WAIT_S, READ_S, DECODE_S, PACK_S, DISPATCH_S = (
    STAGES.labels(stage) for stage in ("wait", "read", "decode", "pack", "dispatch")
)

IN_FLIGHT = _gauge("batches_in_flight", "Batches sent to the workers and not stored")
EVENTS_IN_FLIGHT = _gauge("events_in_flight", "Events of the batches that are sent and not stored")
BYTES_IN_FLIGHT = _gauge("bytes_in_flight", "Bytes of compressed payload that are sent and not stored")
OLDEST_BATCH = _gauge("oldest_batch_age_seconds", "Time since the oldest batch in flight was packed")
LAG_SECONDS = _gauge("lag_seconds", "Age of the oldest commit that was read and is not stored")
LAG_BYTES = _gauge("lag_bytes", "WAL between what was received and what is confirmed")
EPOCH = _gauge("epoch", "Number of the session among all of the pipeline; 0 until recovery is done")
PAUSED = _gauge("paused", "1 during a pause (`outhaul pause`)")
VIEWS_NOT_EXACT = _gauge(
    "views_not_exact", "Materialized views that may not get each event exactly once, but for those that are accepted"
)
RECOVERY = _gauge("recovery_seconds", "How long the latest recovery took")
FEEDBACK_AGE = _gauge(
    "feedback_age_seconds", "Time since the reader last sent its position to Postgres; 0 without a session"
)
SILENCE = _gauge("silence_seconds", "Time since the last byte from Postgres; 0 without a session")

BATCH_EVENTS = Histogram("outhaul_reader_batch_events", "Events of a batch", buckets=_EVENTS, registry=REGISTRY)
BATCH_BYTES = Histogram(
    "outhaul_reader_batch_bytes", "Bytes of a batch's compressed payload", buckets=_BYTES, registry=REGISTRY
)
BATCH_SECONDS = Histogram(
    "outhaul_reader_batch_seconds",
    "From packing a batch to the report that it is stored",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800),
    registry=REGISTRY,
)


class Latencies:
    """Ages of commits, counted in buckets."""

    def __init__(self) -> None:
        """Start empty."""
        self.counts = np.zeros(_BUCKETS + 1, np.int64)
        self.sum_s = 0.0

    def observe(self, committed_at_us: npt.NDArray[np.int64], now_us: int) -> None:
        """Count the ages at `now_us` of commits at these times; at least one, all Unix µs."""
        times = committed_at_us
        if not (times[1:] >= times[:-1]).all():
            times = np.sort(times, kind="stable")
        if times[-1] > now_us:
            times = np.minimum(times, now_us)
        # The times are sorted, so the hundred bounds are looked up in them: that is faster than the other way round.
        # `older` is the number of commits older than each bound; an age equal to a bound is in its bucket.
        older = np.searchsorted(times, now_us - _BOUNDS_US)
        self.counts -= np.diff(older, prepend=len(times), append=0)
        self.sum_s += (now_us * len(times) - int(times.sum())) / 1e6

    def quantile(self, q: float) -> float | None:
        """Return the quantile `q` of the ages, in seconds; None without a value."""
        total = int(self.counts.sum())
        if not total:
            return None
        bucket = int(np.searchsorted(np.cumsum(self.counts), q * total))
        return float(BOUNDS_S[min(bucket, _BUCKETS - 1)])


class LatencyCollector(Collector):
    """Exports the ages of commits as a histogram."""

    def __init__(self, name: str, what: str) -> None:
        """Start empty."""
        self.latencies = Latencies()
        self._name = f"outhaul_reader_{name}"
        self._what = what

    def collect(self) -> Iterable[Metric]:
        """Yield the histogram with every fourth bucket: 1 ms to 14 hours, each about twice the one before."""
        cumulative = self.latencies.counts.cumsum()
        buckets = [(f"{BOUNDS_S[i]:.6g}", int(cumulative[i])) for i in range(0, len(BOUNDS_S), 4)]
        buckets.append(("+Inf", int(cumulative[-1])))
        yield HistogramMetricFamily(self._name, self._what, buckets=buckets, sum_value=self.latencies.sum_s)


COMMIT_TO_CAPTURE = LatencyCollector("commit_to_capture_seconds", "From an event's commit until it is decoded")
COMMIT_TO_STORED = LatencyCollector(
    "commit_to_stored_seconds", "From an event's commit to the report that ClickHouse has stored it"
)
REGISTRY.register(COMMIT_TO_CAPTURE)
REGISTRY.register(COMMIT_TO_STORED)

PHASE = Gauge("outhaul_reader_phase", "1 for the reader's phase, 0 for all others", ["phase"], registry=REGISTRY)

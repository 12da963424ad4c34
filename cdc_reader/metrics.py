"""What the reader did -> Prometheus metrics.

Edge: a registry of its own, so that a reader shows what is its own and nothing of the modules that it shares with
workers. Labels are few and bounded, and those that are known beforehand begin at 0: a rate needs a beginning.

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

# Events of a batch grow from one to a hundred thousand, its bytes from some hundreds to some ten millions.
_EVENTS = (1, 10, 100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 150_000, 1_000_000)
_BYTES = tuple(1024 * 4**power for power in range(10))

# Latencies are counted in buckets that grow by a fifth each: exact to ten per cent, small enough to keep for ever, and
# mergeable.
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
LEFT_OUT = _counter("events_left_out", "Events that ClickHouse held already when they were streamed again")
STRAY_MESSAGES = _counter("messages_ignored", "Logical messages of ours that belong to no transaction")
STORED = _counter("events_stored", "Events reported stored, dead letters included")
STORED_BYTES = _counter("bytes_stored", "Bytes of compressed payload reported stored")
DEAD_LETTERED = _counter("events_dead_lettered", "Events reported set aside as dead letters")
BATCHES = _counter("batches_stored", "Batches reported stored")
_REASONS = ("silence", "redis", "missing", "copy", "other_version")
REDISPATCHES = _counter("redispatches", "Batches sent again", reason=_REASONS)
RETRIES = _counter("retries", "Attempts that a stage repeats", where=("recovery", "dispatch", "reports"))
REPORTS_REFUSED = _counter(
    "reports_refused", "Lines in the place of reports that no worker has written", why=("unreadable", "forged")
)
SESSIONS = _counter("sessions", "Streaming sessions begun")
SESSION_ENDS = _counter("session_ends", "Streaming sessions ended, by class of the error", reason=("TransientError",))
TAKEOVERS = _counter("takeovers", "Sessions of silent readers that this one ended to take their slot")
HEALS = _counter("heals", "Copies of what a slot skipped, by how they ended", outcome=("done", "failed"))
HEALED = _counter("healed_events", "Events copied from the outbox because ClickHouse lacked them")
SLOT_CHANGES = _counter(
    "slot_changes",
    "Slots given up or made anew by the reader",
    reason=("slot_missing", "slot_unusable", "other_history", "parked"),
)
STAGES = _counter(
    "stage_seconds",
    "Time spent by stage; the three threads of wait and read, decode and pack, dispatch run beside each other",
    stage=("wait", "read", "decode", "pack", "dispatch"),
)
WAIT_S, READ_S, DECODE_S, PACK_S, DISPATCH_S = (
    STAGES.labels(stage) for stage in ("wait", "read", "decode", "pack", "dispatch")
)

IN_FLIGHT = _gauge("batches_in_flight", "Batches handed on and not stored")
EVENTS_IN_FLIGHT = _gauge("events_in_flight", "Events of the batches that are sent and not stored")
BYTES_IN_FLIGHT = _gauge("bytes_in_flight", "Bytes of compressed payload that are sent and not stored")
OLDEST_BATCH = _gauge("oldest_batch_age_seconds", "Time since the oldest batch in flight was packed")
LAG_SECONDS = _gauge("lag_seconds", "Age of the oldest commit that was read and is not stored")
LAG_BYTES = _gauge("lag_bytes", "WAL between what was received and what is confirmed")
EPOCH = _gauge("epoch", "Number of the session among all of its pipeline; 0 before recovery is done")
PAUSED = _gauge("paused", "1 while `outhaul pause` keeps the reader from taking rows")
RECOVERY = _gauge("recovery_seconds", "How long the latest recovery took")
FEEDBACK_AGE = _gauge("feedback_age_seconds", "Time since Postgres was last told the position; 0 without a session")
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
    """Ages of commits, counted by bucket."""

    def __init__(self) -> None:
        """Start empty."""
        self.counts = np.zeros(_BUCKETS + 1, np.int64)
        self.sum_s = 0.0

    def observe(self, committed_at_us: npt.NDArray[np.int64], now_us: int) -> None:
        """Count the ages at `now_us` of what was committed at these times, at least one, all Unix µs."""
        times = committed_at_us
        if not (times[1:] >= times[:-1]).all():
            times = np.sort(times, kind="stable")
        if times[-1] > now_us:
            times = np.minimum(times, now_us)
        # Commits come nearly in the order of their times, so the hundred bounds are looked up among them, and not the
        # other way around. How many are older than each bound; what is as old as a bound is within it.
        older = np.searchsorted(times, now_us - _BOUNDS_US)
        self.counts -= np.diff(older, prepend=len(times), append=0)
        self.sum_s += (now_us * len(times) - int(times.sum())) / 1e6

    def quantile(self, q: float) -> float | None:
        """Return the value below which a share `q` of the values lies, in seconds; None when there is none."""
        total = int(self.counts.sum())
        if not total:
            return None
        bucket = int(np.searchsorted(np.cumsum(self.counts), q * total))
        return float(BOUNDS_S[min(bucket, _BUCKETS - 1)])


class LatencyCollector(Collector):
    """Times from commit on, counted a batch at a time."""

    def __init__(self, name: str, what: str) -> None:
        """Start empty."""
        self.latencies = Latencies()
        self._name = f"outhaul_reader_{name}"
        self._what = what

    def collect(self) -> Iterable[Metric]:
        """Yield the histogram, every fourth bucket: 1 ms to 14 hours, each about twice the one before."""
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

PHASE = Gauge("outhaul_reader_phase", "1 for what the reader does, 0 for all else", ["phase"], registry=REGISTRY)

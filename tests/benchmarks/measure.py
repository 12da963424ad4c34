"""Options -> all figures of one run, as a tree that becomes JSON.

One stack, one run: whatever is compared was measured in turn on the same servers, since machines differ and are shared.
Ratios are taken pair by pair, each run of outhaul against the run of pg_recvlogical just before it.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.drain import Drained, capture, end_to_end
from tests.benchmarks.idle import rest
from tests.benchmarks.latency import live
from tests.benchmarks.pg_recvlogical import receive
from tests.benchmarks.polling import poll

if TYPE_CHECKING:
    from tests.benchmarks.stack_with_backlog import Bed

Tell = Callable[[str], None]
Figures = dict[str, Any]

_PACKAGES = ("outhaul", "psycopg", "pyarrow", "numpy", "celery", "redis", "clickhouse-connect", "chdb-core-lite")
_WORKER_START_S = 60.0
# What a row has on the wire beside its context, roughly: so backlogs of different contexts are of one size.
_ROW_BYTES = 180
# The first batch of each of a worker's processes also opens its connections.
_WARM_UP_RATE, _WARM_UP_S = 50, 3.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure: rows of the backlog, runs of each kind, and which parts."""

    rows: int = 1_000_000
    runs: int = 3
    live_s: float = 20.0
    idle_s: float = 30.0
    growth: bool = True
    polling_rows: int = 1_000_000
    polling_sizes: tuple[int, ...] = (100, 1000, 10_000)


QUICK = Options(
    rows=200_000, runs=2, live_s=5.0, idle_s=10.0, growth=False, polling_rows=50_000, polling_sizes=(10_000,)
)
"""About two minutes."""


def measure(bed: Bed, options: Options, tell: Tell) -> Figures:
    """Measure everything; call `tell` with each step."""
    figures: Figures = {"machine": _machine(), "versions": _versions(bed), "settings": _settings(bed)}
    figures["options"] = asdict(options)
    # First of all: file systems are slow to make files where many were removed in the last minutes.
    figures |= _at_work(bed, options, tell)
    tell(f"writing a backlog of {options.rows:,} rows")
    figures |= _backlog(bed, options, tell)
    figures["polling"] = _polling(bed, options, tell)
    figures["ratios"]["polling"] = _against_polling(figures)
    if options.growth:
        figures["growth"] = _growth(bed, options, tell)
    return figures


def _backlog(bed: Bed, options: Options, tell: Tell) -> Figures:
    """Read the same backlog with the peer and with ours, in turn."""
    end, rows = bed.write(options.rows), options.rows
    peers: dict[str, list[float]] = {"binary_tcp": [], "text_tcp": [], "binary_unix": []}
    captured, stored = [], []
    for run in range(1, options.runs + 1):
        tell(f"run {run} of {options.runs}: pg_recvlogical, capture, end to end")
        peers["binary_tcp"].append(rows / receive(bed, end))
        captured.append(capture(bed, end))
        stored.append(_stored(bed, end, rows))
        peers["text_tcp"].append(rows / receive(bed, end, binary=False))
        peers["binary_unix"].append(rows / receive(bed, end, unix_socket=True))
    peer = peers["binary_tcp"]
    return {
        "pg_recvlogical_rows_per_s": {name: spread(rates) for name, rates in peers.items()},
        "capture": _drained(captured, rows),
        "end_to_end": _drained(stored, rows),
        "ratios": {
            "capture": spread([rows / one.seconds / their for one, their in zip(captured, peer, strict=True)]),
            "end_to_end": spread([rows / one.seconds / their for one, their in zip(stored, peer, strict=True)]),
        },
        "reader_peak_rss_mb": max(one.peak_rss_mb["reader"] for one in stored),
    }


def _stored(bed: Bed, end: str, rows: int, *, workers: int = 1, views: int = 0) -> Drained:
    """Bring the backlog into an empty ClickHouse, and see that it is all there, and in each view."""
    bed.empty_clickhouse()
    bed.make_views(views)
    pipeline = bed.pipeline()
    names = ["worker", *(f"worker-{number}" for number in range(2, workers + 1))]
    pipeline.start(*names)
    try:
        bed.wait(lambda: bed.workers() >= workers, "the workers are ready", within_s=_WORKER_START_S)
        drained = end_to_end(bed, pipeline, end)
    finally:
        pipeline.stop()
    for table, stored in {"event_log": bed.stored(), **bed.stored_in_views(views)}.items():
        if stored != rows:
            raise RuntimeError(f"{stored} of {rows} rows are in {table}")
    return drained


def _at_work(bed: Bed, options: Options, tell: Tell) -> Figures:
    """Time single events at steady rates, with and without a wait for the disk, and look at an idle pipeline."""
    pipeline = bed.pipeline()
    pipeline.start("worker", "reader")
    try:
        bed.wait(lambda: bed.workers() >= 1, "the worker is ready", within_s=_WORKER_START_S)
        live(bed, pipeline, _WARM_UP_RATE, _WARM_UP_S)
        latency = {}
        for rate in (100, 1000, 10_000):
            tell(f"{rate:,} events a second for {options.live_s:g} s")
            latency[str(rate)] = asdict(live(bed, pipeline, rate, options.live_s))
        tell("the same at 1,000 with synchronous_commit = off")
        latency["1000_commit_off"] = asdict(live(bed, pipeline, 1000, options.live_s, synchronous_commit=False))
        tell(f"idle for {options.idle_s:g} s")
        idle = rest(bed, pipeline, options.idle_s)
    finally:
        pipeline.stop()
    return {"latency": latency, "idle": asdict(idle)}


def _polling(bed: Bed, options: Options, tell: Tell) -> Figures:
    """Drain an outbox with a `processed` flag, a hundred batches each; plain and tuned, see polling_app.py."""
    found: Figures = {}
    for tuned in (False, True):
        kind = "tuned" if tuned else "plain"
        found[kind] = {}
        for size in options.polling_sizes:
            tell(f"polling ({kind}), {size:,} rows a batch")
            rows = min(options.polling_rows, size * 100)
            found[kind][str(size)] = asdict(poll(bed, rows, size, tuned=tuned, old=tuned))
    bed.conn.execute("DROP TABLE polled_outbox")
    return found


def _against_polling(figures: Figures) -> Figures:
    ours = figures["end_to_end"]["rows_per_s"]["median"]
    best = {kind: max(one["rows_per_s"] for one in sizes.values()) for kind, sizes in figures["polling"].items()}
    return {kind: round(ours / rate, 2) for kind, rate in best.items()}


def _growth(bed: Bed, options: Options, tell: Tell) -> Figures:
    """Vary one thing at a time: rows, rows a transaction, bytes a row, workers, views; each beside pg_recvlogical."""
    few = options.rows // 10
    found: Figures = {"rows": {}, "rows_in_transaction": {}, "context_bytes": {}, "workers": {}, "views": {}}
    for rows in (few, options.rows, options.rows * 10):
        found["rows"][str(rows)] = _grown(bed, tell, rows)
    for size in (1, 10, 100, 10_000, options.rows):
        rows = options.rows if size == options.rows else few * 3
        found["rows_in_transaction"][str(size)] = _grown(bed, tell, rows, in_transaction=size)
    for size in (150, 2_000, 20_000):
        rows = max(options.rows * _ROW_BYTES // (size + _ROW_BYTES), 1000)
        found["context_bytes"][str(size)] = _grown(bed, tell, rows, context_bytes=size)
    for workers in (1, 2):
        found["workers"][str(workers)] = _grown(bed, tell, options.rows, workers=workers)
    for views in (0, 1, 3):
        found["views"][str(views)] = _grown(bed, tell, options.rows, views=views)
    return found


def _grown(
    bed: Bed,
    tell: Tell,
    rows: int,
    *,
    in_transaction: int = 1000,
    context_bytes: int = 150,
    workers: int = 1,
    views: int = 0,
) -> Figures:
    tell(
        f"{rows:,} rows, {in_transaction:,} a transaction, contexts of {context_bytes:,} bytes, {workers} worker(s), "
        f"{views} view(s)"
    )
    end = bed.write(rows, in_transaction=in_transaction, context_bytes=context_bytes)
    peer = rows / receive(bed, end)
    drained = _stored(bed, end, rows, workers=workers, views=views)
    rate = rows / drained.seconds
    tell(f"  {rate:,.0f} rows/s, {rate / peer:.2f} × pg_recvlogical")
    return {
        "rows": rows,
        "rows_per_s": round(rate),
        "pg_recvlogical_rows_per_s": round(peer),
        "ratio": round(rate / peer, 2),
        "reader_peak_rss_mb": drained.peak_rss_mb["reader"],
        "cpu_s_per_million_rows": {name: round(cpu_s * 1e6 / rows, 2) for name, cpu_s in drained.cpu_s.items()},
    }


def _drained(runs: list[Drained], rows: int) -> Figures:
    names = runs[0].cpu_s
    return {
        "rows_per_s": spread([rows / one.seconds for one in runs]),
        "cpu_s_per_million_rows": {name: spread([one.cpu_s[name] * 1e6 / rows for one in runs]) for name in names},
        "peak_rss_mb": {name: max(one.peak_rss_mb[name] for one in runs) for name in names},
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: round(value, 3 if value < 100 else None) for name, value in found.items()}


def _machine() -> Figures:
    return {
        "cpus": os.cpu_count(),
        "model": _line("/proc/cpuinfo", "model name"),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "platform": platform.platform(),
    }


def _line(path: str, name: str) -> str:
    lines = (line.partition(":") for line in Path(path).read_text(encoding="utf-8").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def _versions(bed: Bed) -> Figures:
    servers = {name: one.version for name, one in bed.stack.status().items()}
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES} | servers


def _settings(bed: Bed) -> Figures:
    names = ("linger_s", "batch_max_rows", "batch_max_bytes", "max_in_flight")
    return {name: getattr(bed.settings, name) for name in names}

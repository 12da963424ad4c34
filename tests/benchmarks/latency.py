"""Events at a steady rate, a transaction each -> how long after its commit each one is seen by a SELECT.

Edge: writers in processes of their own, and a ClickHouse that is asked all the time. An event is visible when a SELECT
that began after that returns it, so what is reported is an upper bound by the time of one question. Every clock read
here is this machine's.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psycopg

from tests.benchmarks.cost import look

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from deploy.demo.pipeline import Pipeline
    from tests.benchmarks.bed import Bed

_INSERT = (
    "INSERT INTO outbox (event_type, environment, event_context) VALUES "
    "('bench_live', 'bench', jsonb_build_object('n', %s::int, 'text', repeat('x', 150))) RETURNING id"
)
_SINGLES_A_WRITER = 1500
_IDLE_BYTES = 10_000
_VISIBLE_S = 60.0
# A question every so often, in seconds; each costs the engine a few milliseconds, which would be missed elsewhere.
_ASK_S = 0.02


@dataclass(frozen=True, slots=True)
class Live:
    """One rate: milliseconds from commit to visible, events really written a second, parts and costs meanwhile."""

    events_per_s: int
    written_per_s: float
    synchronous_commit: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    stored_p50_ms: float
    stored_p99_ms: float
    new_parts_per_s: float
    cpu_s_per_s: dict[str, float]


def live(bed: Bed, pipeline: Pipeline, rate: int, seconds: float, *, synchronous_commit: bool = True) -> Live:
    """Write `rate` events a second for some seconds through a pipeline that is running, and time each one.

    Raises:
        TimeoutError: not all of them became visible.
    """
    bed.wait(lambda: _is_idle(bed), "the pipeline is at rest", within_s=60)
    bed.clickhouse.command("TRUNCATE TABLE event_log")
    bed.clickhouse.command("SYSTEM STOP MERGES event_log")
    roots = bed.roots() | pipeline.pids("worker") | {"reader": pipeline.pid("reader")}
    parts, before = bed.parts_written(), look(roots)
    count = max(1, -(-rate // _SINGLES_A_WRITER))
    context = multiprocessing.get_context("fork")
    with context.Pool(count) as pool:
        begin = time.time() + 1.0
        each = (bed.dsn, rate / count, begin, seconds, synchronous_commit)
        writing = pool.starmap_async(_write, [each] * count)
        seen = _watch(bed, writing.ready)
        committed = np.concatenate([np.array(one, np.float64).reshape(-1, 2) for one in writing.get()])
    bed.wait(lambda: _ask(bed, seen) == len(committed), "all events are visible", within_s=_VISIBLE_S)
    after, made = look(roots), bed.parts_written() - parts
    bed.clickhouse.command("SYSTEM START MERGES event_log")
    took_ms, stored_ms = _times(bed, seen, committed)
    return Live(
        events_per_s=rate,
        written_per_s=round(len(committed) / seconds, 1),
        synchronous_commit="on" if synchronous_commit else "off",
        p50_ms=_percentile(took_ms, 50),
        p95_ms=_percentile(took_ms, 95),
        p99_ms=_percentile(took_ms, 99),
        max_ms=_percentile(took_ms, 100),
        stored_p50_ms=_percentile(stored_ms, 50),
        stored_p99_ms=_percentile(stored_ms, 99),
        new_parts_per_s=round(made / seconds, 2),
        cpu_s_per_s={name: round(cpu_s / seconds, 3) for name, cpu_s in after.since(before).items()},
    )


def _write(dsn: str, rate: float, begin: float, seconds: float, synchronous_commit: bool) -> list[tuple[int, float]]:
    """Commit single rows at a rate; return the id of each and when its COMMIT returned."""
    committed: list[tuple[int, float]] = []
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as conn:
        conn.execute(f"SET synchronous_commit = {'on' if synchronous_commit else 'off'}".encode())
        for number in range(int(rate * seconds)):
            wait_s = begin + number / rate - time.time()
            if wait_s > 0:
                time.sleep(wait_s)
            row = conn.execute(_INSERT, [number]).fetchone()
            committed.append((int(row[0]) if row else 0, time.time()))
            if time.time() > begin + seconds:
                break
    return committed


def _watch(bed: Bed, is_over: Callable[[], bool]) -> dict[int, float]:
    """Ask until the writers are done; return when the rows of each insert were seen first, by the insert's own time.

    All rows of an insert carry the time at which it ran, so few rows are asked for, however many are written.
    """
    seen: dict[int, float] = {}
    while not is_over():
        _ask(bed, seen)
        time.sleep(_ASK_S)
    return seen


def _ask(bed: Bed, seen: dict[int, float]) -> int:
    rows = bed.clickhouse.rows(
        "SELECT toUnixTimestamp64Micro(cdc_ingested_at) AS at, count() FROM event_log GROUP BY at"
    )
    now = time.time()
    for at, _ in rows:
        seen.setdefault(int(at), now)
    return sum(int(count) for _, count in rows)


def _times(
    bed: Bed, seen: dict[int, float], committed: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return for each event the milliseconds from its commit until it was seen, and until its insert ran."""
    rows = bed.clickhouse.rows("SELECT id, toUnixTimestamp64Micro(cdc_ingested_at) FROM event_log")
    stored_us = {int(number): int(at) for number, at in rows}
    when = [(stored_us[int(number)], float(at)) for number, at in committed]
    took = [((seen[at_us] - at) * 1000, (at_us / 1e6 - at) * 1000) for at_us, at in when]
    return np.array([visible for visible, _ in took]), np.array([stored for _, stored in took])


def _is_idle(bed: Bed) -> bool:
    query = "SELECT pg_current_wal_lsn() - confirmed_flush_lsn < %s FROM pg_replication_slots WHERE slot_name = %s"
    return bool(bed.value(query, _IDLE_BYTES, bed.settings.slot))


def _percentile(values: npt.NDArray[np.float64], q: float) -> float:
    return round(float(np.percentile(values, q)), 1)

"""A slot before a backlog -> how long the reader takes to bring the slot to its end, with and without a sink.

Edge: starts readers. The clock runs from the moment at which the reader has the slot, as it does for a process that was
there all along, until Postgres says that the slot is at the end: everything is stored, and confirmed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks.process_cost import Look, look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outhaul.deploy.demo.pipeline import Pipeline
    from tests.benchmarks.stack_with_backlog import Bed

_STATE = "SELECT active, confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"


@dataclass(frozen=True, slots=True)
class Drained:
    """One run: seconds, and what it cost by process: processor seconds, and peak memory (MB)."""

    seconds: float
    cpu_s: dict[str, float]
    peak_rss_mb: dict[str, float]


def capture(bed: Bed, end: str) -> Drained:
    """Let the reader read a backlog into a sink that stores at once."""
    bed.copy_slot(bed.settings.slot)
    with _null_sink(bed) as pid:
        return _until_end(bed, end, lambda: bed.roots() | {"reader": pid})


def end_to_end(bed: Bed, pipeline: Pipeline, end: str) -> Drained:
    """Let a reader, started for this, and the workers that are running bring a backlog into ClickHouse."""
    bed.copy_slot(bed.settings.slot)
    pipeline.start("reader")
    workers = pipeline.pids("worker")
    drained = _until_end(bed, end, lambda: bed.roots() | workers | {"reader": pipeline.pid("reader")}, pipeline.check)
    pipeline.stop("reader")
    return drained


def _until_end(
    bed: Bed, end: str, roots: Callable[[], dict[str, int]], check: Callable[[], None] = lambda: None
) -> Drained:
    slot = bed.settings.slot

    def state() -> tuple[bool, bool]:
        check()
        row = bed.conn.execute(_STATE, [end, slot]).fetchone()
        return (bool(row[0]), bool(row[1])) if row else (False, False)

    bed.wait(lambda: state()[0], "the reader has the slot", within_s=60)
    started, before = time.monotonic(), look(roots())
    bed.wait(lambda: state()[1], "the slot is at the end of the backlog")
    seconds, after = time.monotonic() - started, look(roots())
    return Drained(seconds, after.since(before), _rounded(after))


def _rounded(seen: Look) -> dict[str, float]:
    return {name: round(size) for name, size in seen.peak_rss_mb.items()}


@contextmanager
def _null_sink(bed: Bed) -> Iterator[int]:
    with (bed.folder / "null_sink.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.null_sink"],
            env=os.environ | bed.stack.env(),
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)

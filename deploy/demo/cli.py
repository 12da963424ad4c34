"""`outhaul demo` -> a year of real events through an embedded stack, reader and worker, and a count of all of them.

Edge: the terminal; starts and stops the stack and the processes.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from outhaul.cdc_reader.operate.setup import apply_clickhouse, apply_postgres
from outhaul.cdc_reader.operate.status.overview import Status, gather
from outhaul.cdc_reader.session.reader_state import ReaderState
from outhaul.deploy.demo import report
from outhaul.deploy.demo.flight_events import FLIGHTS_IN_2013, events
from outhaul.deploy.demo.pipeline import Pipeline, running
from outhaul.deploy.demo.write_outbox import Written, replay
from outhaul.deploy.local import leftovers
from outhaul.deploy.local.ports import Ports
from outhaul.deploy.local.stack import Stack
from outhaul.sink.app import make_app
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.quoting import clickhouse_identifier
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import reader_key
from outhaul.sink.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_S = 0.1
# Longest time without a newly stored event before the demo gives up, in seconds.
_STALL_S = 120.0
_TIMEOUT_S = 60
_START_S = 60.0
_PROCESSES = ("worker", "reader", "exporter")


def demo(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object on the last line.")
    ] = False,
    rows: Annotated[
        int, typer.Option(min=1, help="Number of events; above a year's, the year repeats.")
    ] = FLIGHTS_IN_2013,
    keep: Annotated[bool, typer.Option(help="Leave everything running, and start Flower.")] = False,
    data_dir: Annotated[Path, typer.Option(help="Directory for data and logs; emptied first.")] = Path(".outhaul/demo"),
) -> None:
    """Send the flights of 2013 through an embedded pipeline, and count them.

    Example: outhaul demo --json --rows 100000 | tail -1
    """
    console = Console(stderr=as_json)
    with _stack(data_dir, keep=keep) as stack, ExitStack() as clients:
        settings = _settings(stack)
        clickhouse = clients.enter_context(ClickHouse.of(settings, timeout_s=_TIMEOUT_S))
        payloads = clients.enter_context(Payloads.of(settings))
        console.print(f"PostgreSQL, Valkey and the ClickHouse engine run on this machine, data in {data_dir}")
        apply_clickhouse(clickhouse, settings, _quiet)
        apply_postgres(settings, _quiet)
        clickhouse.command(f"SYSTEM STOP MERGES {clickhouse_identifier(settings.clickhouse_table)}")
        metrics = {name: Ports(data_dir).choose(f"{name}-metrics", None)[0] for name in _PROCESSES}
        for name, port in metrics.items():
            console.print(f"{name}: metrics on http://127.0.0.1:{port}/metrics", highlight=False)
        if keep:
            console.print(f"Flower: {stack.up_flower()}", highlight=False)
        with running(stack.env(), data_dir, metrics=metrics, keep=keep) as pipeline:
            _ready(settings, payloads, pipeline)
            started = time.monotonic()
            written, found = _run(settings, payloads, clickhouse, pipeline, rows, console)
            seconds = time.monotonic() - started
        reader = found.reader
        quantiles = (reader.p50_ms, reader.p99_ms) if reader else (None, None)
        result = report.compare(settings.postgres_dsn.get_secret_value(), clickhouse, written, seconds, *quantiles)
        _show(result, written, seconds, console)
        for table in report.tables(clickhouse):
            console.print(table)
        if keep:
            leftovers.note(data_dir, (pipeline.pid(name) for name in _PROCESSES))
            console.print(
                f'Everything keeps running. Try: eval "$(outhaul local env --data-dir {data_dir})"; outhaul status\n'
                f"To stop it: outhaul local down --data-dir {data_dir}",
                highlight=False,
                soft_wrap=True,
            )
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    raise typer.Exit(Exit.FINE if result.is_clean else Exit.NOT_FINE)


def _quiet(_line: str) -> None:
    """Discard a line of setup's output."""


@contextmanager
def _stack(data_dir: Path, *, keep: bool) -> Iterator[Stack]:
    stack = Stack(data_dir)
    stack.down()
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
    stack = Stack(data_dir)
    try:
        stack.up()
        yield stack
    finally:
        if not keep:
            stack.down()


def _settings(stack: Stack) -> Settings:
    # The demo shows outhaul's defaults, so OUTHAUL_* variables of the shell are removed.
    for name in [name for name in os.environ if name.startswith("OUTHAUL_")]:
        del os.environ[name]
    os.environ.update(stack.env())
    return load()


def _ready(settings: Settings, payloads: Payloads, pipeline: Pipeline) -> None:
    """Wait until reader and worker are ready, so that their start does not count as latency."""
    app, deadline = make_app(settings), time.monotonic() + _START_S
    while True:
        pipeline.check()
        line = payloads.text(reader_key(settings.source))
        state = ReaderState.from_json(line) if line else None
        if state and state.phase == "streaming" and app.control.ping(timeout=_POLL_S):
            return
        if time.monotonic() > deadline:
            raise FatalError(
                f"reader and worker were not ready within {_START_S:.0f} s",
                todo="Read reader.log and worker.log in the data directory",
            )
        time.sleep(_POLL_S)


def _run(
    settings: Settings, payloads: Payloads, clickhouse: ClickHouse, pipeline: Pipeline, rows: int, console: Console
) -> tuple[Written, Status]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        committed = progress.add_task("committed in Postgres", total=rows)
        stored = progress.add_task("stored in ClickHouse ", total=rows)

        def wrote(count: int) -> None:
            progress.update(committed, completed=count)

        written = replay(settings.postgres_dsn.get_secret_value(), events(rows), wrote)
        moved_at, seen = time.monotonic(), -1
        while True:
            pipeline.check()
            found = gather(settings, payloads, clickhouse)
            count = found.rows or 0
            progress.update(stored, completed=count)
            if count > seen:
                moved_at, seen = time.monotonic(), count
            if count >= written.committed and found.reader and not found.reader.in_flight_batches:
                return written, found
            if time.monotonic() - moved_at > _STALL_S:
                raise FatalError(
                    f"nothing was stored for {_STALL_S:.0f} s: {'; '.join(found.wrong) or 'the reason is unknown'}",
                    todo="Read reader.log and worker.log in the data directory",
                )
            time.sleep(_POLL_S)


def _show(result: report.Report, written: Written, seconds: float, console: Console) -> None:
    colour = "green" if result.is_clean else "red"
    console.print(
        f"\n[bold]{result.committed:,} events committed[/] in {written.commits:,} transactions, "
        f"{result.rolled_back:,} rolled back in {written.rollbacks:,}\n"
        f"[bold]{result.stored:,} stored[/] in {seconds:.1f} s ({result.rows_per_s:,} a second, writing included)\n"
        f"[bold {colour}]missing {result.missing}, duplicated {result.duplicated}[/] "
        "(by id, no FINAL, merges stopped)\n"
        f"commit to stored: p50 {_ms(result.p50_ms)}, p99 {_ms(result.p99_ms)}\n"
    )


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} ms"

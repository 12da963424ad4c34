"""`outhaul status`: is it running, how far behind, what is wrong; exit code 1 when something is."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cdc_reader.status import Status, gather
from sink.clickhouse import ClickHouse
from sink.errors import Exit
from sink.payloads import Payloads
from sink.settings import load

_TIMEOUT_S = 5


def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
) -> None:
    """Show slot, reader, sink and ClickHouse in one screen; exit 1 where something is wrong.

    Example: outhaul status --json | jq .wrong
    """
    settings = load()
    payloads = Payloads(settings.redis_url.get_secret_value())
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=_TIMEOUT_S)
    found = gather(settings, payloads, clickhouse)
    if watch:
        with Live(screen(found), auto_refresh=False) as live:
            while True:
                time.sleep(1.0)
                live.update(screen(gather(settings, payloads, clickhouse)), refresh=True)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        Console().print(screen(found))
    raise typer.Exit(Exit.NOT_FINE if found.wrong else Exit.FINE)


def screen(found: Status) -> Table:
    """Lay out a snapshot."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    slot, reader = found.slot, found.reader
    if slot:
        table.add_row(
            "slot",
            f"{'active' if slot['active'] else 'inactive'}, confirmed {slot['confirmed_lsn']}, "
            f"{_bytes(slot['retained_bytes'])} of WAL kept, wal_status {slot['wal_status']}",
        )
    if reader:
        table.add_row(
            "reader",
            f"{reader.phase}, epoch {reader.epoch}, {_bytes(slot['behind_bytes']) if slot else '?'} and "
            f"{reader.lag_s:.1f} s behind, received {reader.received_lsn}",
        )
        table.add_row(
            "in flight",
            f"{reader.in_flight_batches} batches, {reader.in_flight_rows:,} rows, {_bytes(reader.in_flight_bytes)}",
        )
        table.add_row("latency", f"commit to stored p50 {_ms(reader.p50_ms)}, p99 {_ms(reader.p99_ms)}")
    if found.queue_length is not None:
        stored = (
            datetime.fromtimestamp(found.last_stored_at, UTC).isoformat(timespec="seconds")
            if found.last_stored_at
            else "never"
        )
        table.add_row("sink", f"{found.queue_length} messages queued, last stored {stored}")
    if found.rows is not None:
        table.add_row(
            "ClickHouse",
            f"{found.rows:,} rows in {found.parts} parts, {_bytes(found.bytes_on_disk)}, "
            f"{found.dead_letters:,} dead letters",
        )
    silences = ", ".join(f"{what} {_short(seconds)}" for what, seconds in found.noticed_within_s.items())
    table.add_row("noticed", f"within: {silences}")
    for line in found.wrong or ["nothing is wrong"]:
        table.add_row("[red]wrong[/]" if found.wrong else "[green]fine[/]", line)
    return table


def _short(seconds: float) -> str:
    return f"{seconds:g} s"


def _bytes(size: int | None) -> str:
    value = float(size or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:  # noqa: PLR2004 - the next unit
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"

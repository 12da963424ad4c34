"""`outhaul status` -> one screen: what runs, how far behind it is, what is wrong; exit code 1 if something is wrong.

Edge: the command line.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from outhaul.cdc_reader.operate.status.overview import Shard, Status, gather
from outhaul.cdc_reader.operate.status.units import kept, milliseconds, paused, phase_then, utc
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit
from outhaul.sink.quantities import size_text
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT_S = 5
# Each refresh also takes a second more, to measure how fast the WAL grows.
_REFRESH_S = 1.0


def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every few seconds until Ctrl-C.")] = False,
) -> None:
    """Show slot, reader, sink and ClickHouse on one screen; exit 1 if something is wrong.

    Example: outhaul status --json | jq .wrong
    """
    settings = load()
    with Payloads.of(settings) as payloads, ClickHouse.of(settings, timeout_s=_TIMEOUT_S) as clickhouse:
        if watch:
            _watch(lambda: gather(settings, payloads, clickhouse, with_growth=True), as_json=as_json)
        found = gather(settings, payloads, clickhouse, with_growth=True)
    _print(found, as_json=as_json)
    raise typer.Exit(Exit.NOT_FINE if found.wrong else Exit.FINE)


def _watch(look: Callable[[], Status], *, as_json: bool) -> NoReturn:
    if as_json or not Console().is_terminal:
        # Rich draws a live display on terminals only; a log gets one snapshot below the other.
        while True:
            _print(look(), as_json=as_json)
            sys.stdout.flush()
            time.sleep(_REFRESH_S)
    with Live(screen(look()), auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH_S)
            live.update(screen(look()), refresh=True)


def _print(found: Status, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        Console().print(screen(found))


def screen(found: Status) -> Table:
    """Lay out a snapshot."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    slot, reader = found.slot, found.reader
    if slot:
        table.add_row(
            "slot",
            f"{'active' if slot.active else 'inactive'}, confirmed {slot.confirmed_lsn}, "
            f"wal_status {slot.wal_status}"
            + (f", inactive since {slot.inactive_since}" if slot.inactive_since else ""),
        )
        table.add_row("WAL kept", kept(slot))
    if found.pause:
        table.add_row("paused", escape(paused(found.pause)))
    if reader:
        table.add_row(
            "reader",
            f"{phase_then(reader.phase, found.reader_age_s)}, epoch {reader.epoch}, "
            f"{size_text(slot.behind_bytes) if slot else '?'} and "
            f"{reader.lag_s:.1f} s behind, received {reader.received_lsn}, "
            f"on {escape(reader.host)} (process {reader.pid})",
        )
        table.add_row(
            "in flight",
            f"{reader.in_flight_batches} batches, {reader.in_flight_rows:,} rows, {size_text(reader.in_flight_bytes)}",
        )
        table.add_row(
            "latency", f"commit to stored p50 {milliseconds(reader.p50_ms)}, p99 {milliseconds(reader.p99_ms)}"
        )
    for number, shard in enumerate(found.shards):
        table.add_row(f"shard {number}", _of_shard(shard))
    if found.standby:
        table.add_row("standby", f"{escape(found.standby)} waits")
    if found.queue_length is not None:
        stored = utc(found.last_stored_at) if found.last_stored_at else "never"
        table.add_row("sink", f"{found.queue_length} messages queued, last stored {stored}")
    if found.rows is not None:
        table.add_row(
            "ClickHouse",
            f"{found.rows:,} rows in {found.parts} parts, {size_text(found.bytes_on_disk)}, "
            f"{found.dead_letters:,} dead letters",
        )
    silences = ", ".join(f"{what} {_short(seconds)}" for what, seconds in found.noticed_within_s.items())
    table.add_row("noticed", f"within: {silences}")
    for line in found.wrong or ["nothing is wrong"]:
        table.add_row("[red]wrong[/]" if found.wrong else "[green]fine[/]", escape(line))
    return table


def _of_shard(shard: Shard) -> str:
    slot, reader = shard.slot, shard.reader
    doing = "-"
    if reader:
        phase = phase_then(reader.phase, shard.reader_age_s)
        doing = f"{phase}, {reader.lag_s:.1f} s behind, {reader.in_flight_rows:,} rows in flight"
    kept_ = f"confirmed {slot.confirmed_lsn}, {size_text(slot.retained_bytes)} of WAL kept" if slot else "no slot"
    return f"{doing}; {kept_}"


def _short(seconds: float) -> str:
    return f"{seconds:g} s"

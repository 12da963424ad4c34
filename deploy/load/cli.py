"""`outhaul load`: write events at a rate, and say exactly what was written; exit code 1 where Postgres refused."""

from __future__ import annotations

import json
import secrets
import signal
import threading
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from outhaul.cdc_reader.slots.retained_wal import size
from outhaul.deploy.load.plan import Plan, ranges
from outhaul.deploy.load.run import Done, Options, run
from outhaul.deploy.load.writer import How, Tally
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.settings import load as load_settings


def load(
    *,
    rate: Annotated[float, typer.Option(min=0, help="Events a second, of all writers; 0 is as fast as it goes.")] = 100,
    rows: Annotated[int, typer.Option(min=0, help="Stop after so many committed events; 0 is never.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="Stop after so long; 0 is never.")] = 0,
    writers: Annotated[int, typer.Option(min=1, max=64, help="Connections that write at once.")] = 2,
    transaction: Annotated[str, typer.Option(help="Events of a transaction: 10, 1-100, 1:50,1000:5.")] = "1-10",
    rollback: Annotated[float, typer.Option(min=0, max=1, help="Share of transactions rolled back.")] = 0.0,
    context: Annotated[str, typer.Option(help="Bytes of a context: 200, 100-5000.")] = "200",
    types: Annotated[int, typer.Option(min=1, max=10_000, help="How many event types, some frequent.")] = 10,
    keys: Annotated[float, typer.Option(min=0, max=1, help="Share of events with a key.")] = 0.0,
    environment: Annotated[str, typer.Option(help="Theirs.")] = "load",
    how: Annotated[How, typer.Option(help="One statement a transaction, one an event, COPY, or no table.")] = How.MANY,
    seed: Annotated[int, typer.Option(help="The same seed, the same events.")] = 1,
    reconnect_s: Annotated[float, typer.Option(min=0, help="How long a Postgres that is away is waited for.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as one JSON object.")] = False,
) -> None:
    """Write events into the outbox, and count them to the event.

    Until Ctrl-C, or for a while; at a rate, from several writers, with sizes, rollbacks and keys as asked.

    Example: outhaul load --rate 1000 --seconds 60 --transaction 1-100 --rollback 0.1
    """
    settings = load_settings()
    if keys and how in {How.COPY, How.WAL}:
        raise FatalError(f"--how {how.value} knows no keys", todo="Leave --keys out", exit_code=Exit.USAGE)
    (context_bytes, *more) = ranges(context, "--context")
    if more:
        raise FatalError("--context is one size or range", todo="Write 200, or 100-5000", exit_code=Exit.USAGE)
    sizes, name = ranges(transaction, "--transaction"), secrets.token_hex(4)
    plan = Plan(sizes, rollback, context_bytes, types, keys, environment, seed, name)
    options = Options(
        dsn=settings.postgres_dsn.get_secret_value(),
        table=settings.table,
        publication=settings.publication,
        plan=plan,
        how=how,
        writers=writers,
        rate=rate,
        events=rows or None,
        seconds=seconds or None,
        reconnect_s=reconnect_s,
    )
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("writing", total=rows or seconds or None, said="")

        def tell(tally: Tally, elapsed: float) -> None:
            said = f"{tally.events:,} events, {tally.events / elapsed if elapsed else 0:,.0f}/s"
            progress.update(bar, completed=tally.events if rows else elapsed, said=said)

        done = run(options, over, tell)
    if as_json:
        typer.echo(json.dumps(done.to_json()))
    else:
        typer.echo(_said(done))
    if done.error:
        typer.echo(f"outhaul load: Postgres refused: {done.error}", err=True)
    raise typer.Exit(Exit.NOT_FINE if done.error or done.tally.unknown_events else Exit.FINE)


def _said(done: Done) -> str:
    tally, rate = done.tally, done.to_json()["rate"]
    lines = [
        f"{tally.events:,} events committed in {tally.transactions:,} transactions, {size(tally.bytes)} of contexts",
        f"{tally.rolled_back_events:,} rolled back, {tally.rolled_back_transactions:,} transactions whole",
        f"{done.seconds:.1f} s, {rate:,} events a second",
    ]
    if tally.known:
        lines.append(f"{tally.known:,} were no events: their keys were there already")
    if tally.reconnects:
        lines.append(f"{tally.reconnects} times connected again")
    if tally.unknown_events:
        lines.append(f"{tally.unknown_events:,} may or may not be there: Postgres went away while they were committed")
    return "\n".join(lines)

"""`outhaul load` -> events written at a rate, and exact counts of them.

Edge: the terminal. The exit code is 1 if Postgres refused a statement, or if the outcome of a commit is unknown.
"""

from __future__ import annotations

import json
import secrets
import signal
import threading
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from outhaul.cdc_reader.cli.options import duration
from outhaul.deploy.load.run import Options, Result, run
from outhaul.deploy.load.transaction_plan import Plan, ranges
from outhaul.deploy.load.writer import How, Tally
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.quantities import size_text
from outhaul.sink.settings import load as load_settings


def load(
    *,
    rate: Annotated[float, typer.Option(min=0, help="Events a second, of all writers. 0: no limit.")] = 100,
    rows: Annotated[int, typer.Option(min=0, help="Stop after this many committed events. 0: never.")] = 0,
    seconds: Annotated[
        float,
        typer.Option(
            "--for", "--seconds", parser=duration(), metavar="DURATION", help="Stop after this time. 0: never."
        ),
    ] = 0,
    writers: Annotated[int, typer.Option(min=1, max=64, help="Number of connections that write.")] = 2,
    transaction: Annotated[str, typer.Option(help="Events in a transaction: 10, 1-100, 1:50,1000:5.")] = "1-10",
    rollback: Annotated[float, typer.Option(min=0, max=1, help="Share of transactions to roll back.")] = 0.0,
    context: Annotated[str, typer.Option(help="Bytes in a context: 200, 100-5000.")] = "200",
    types: Annotated[int, typer.Option(min=1, max=10_000, help="Number of event types; some are frequent.")] = 10,
    keys: Annotated[float, typer.Option(min=0, max=1, help="Share of events with a key.")] = 0.0,
    environment: Annotated[str, typer.Option(help="Environment of the events.")] = "load",
    how: Annotated[
        How, typer.Option(help="Statements: one a transaction, one an event, COPY, or messages.")
    ] = How.MANY,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events.")] = 1,
    reconnect_s: Annotated[
        float, typer.Option(parser=duration(), metavar="DURATION", help="How long to wait for a Postgres that is down.")
    ] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as one JSON object.")] = False,
) -> None:
    """Write test events into the outbox, and count them exactly.

    It writes until Ctrl-C, or until --rows or --for is reached.

    Example: outhaul load --rate 1000 --for 60s --transaction 1-100 --rollback 0.1
    """
    settings = load_settings()
    if keys and how in {How.COPY, How.WAL}:
        raise FatalError(f"--how {how.value} does not support keys", todo="Omit --keys", exit_code=Exit.USAGE)
    (context_bytes, *more) = ranges(context, "--context")
    if more:
        raise FatalError("--context takes one size or range", todo="Write 200, or 100-5000", exit_code=Exit.USAGE)
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
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[counts]}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("writing", total=rows or seconds or None, counts="")

        def show(tally: Tally, elapsed: float) -> None:
            counts = f"{tally.events:,} events, {tally.events / elapsed if elapsed else 0:,.0f}/s"
            progress.update(bar, completed=tally.events if rows else elapsed, counts=counts)

        result = run(options, stop, show)
    if as_json:
        typer.echo(json.dumps(result.to_json()))
    else:
        typer.echo(_summary(result))
    if result.error:
        typer.echo(f"outhaul load: Postgres refused: {result.error}", err=True)
    raise typer.Exit(Exit.NOT_FINE if result.error or result.tally.unknown_events else Exit.FINE)


def _summary(result: Result) -> str:
    tally, rate = result.tally, result.to_json()["rate"]
    contexts = size_text(tally.bytes)
    lines = [
        f"{tally.events:,} events committed in {tally.transactions:,} transactions, {contexts} of contexts",
        f"{tally.rolled_back_events:,} events rolled back, {tally.rolled_back_transactions:,} whole transactions",
        f"{result.seconds:.1f} s, {rate:,} events a second",
    ]
    if tally.known:
        lines.append(f"{tally.known:,} events ignored: their keys already existed")
    if tally.reconnects:
        lines.append(f"{tally.reconnects} reconnects")
    if tally.unknown_events:
        lines.append(f"{tally.unknown_events:,} events may be committed or not: the link broke during their commit")
    return "\n".join(lines)

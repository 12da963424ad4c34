"""`outhaul setup`: create what is missing on both sides, or print it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from outhaul.cdc_reader.cli import output
from outhaul.cdc_reader.cli.confirm import consent
from outhaul.cdc_reader.operate.setup import (
    apply_clickhouse,
    apply_postgres,
    check_not_newer,
    note_if_skipping,
    print_sql,
    rebind,
)
from outhaul.cdc_reader.postgres.connect import connect_stream
from outhaul.cdc_reader.postgres.preflight import check_server, connect
from outhaul.cdc_reader.slots.plan import count_unread
from outhaul.cdc_reader.slots.reshard import begin, end, former_streams, unfinished
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.settings import MAX_SHARDS, Settings, load

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT_S = 60


def setup(
    *,
    shards: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_SHARDS, help="Divide the stream among so many readers; 1: one stream again."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a stream is divided otherwise.")] = False,
    show: Annotated[bool, typer.Option("--print-sql", help="Print the SQL for a DBA instead of applying it.")] = False,
    cluster: Annotated[
        str, typer.Option(metavar="NAME", help="Make ClickHouse's tables replicated, on the servers of this cluster.")
    ] = "",
    anew: Annotated[
        bool, typer.Option("--rebind", help="Go on from the slot of another server: after a failover or a restore.")
    ] = False,
) -> None:
    """Create table, publication, slot and roles in Postgres and the tables in ClickHouse, where they are missing.

    Example: outhaul setup --print-sql | less
    """
    settings = load() if shards is None else load(shards=shards)
    if show:
        for part in print_sql(settings, cluster):
            typer.echo(part)
        return
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=_TIMEOUT_S)
    check_not_newer(clickhouse, settings)
    # ClickHouse first: a slot keeps WAL from its creation on, so it comes last, when everything else is known to work.
    apply_clickhouse(clickhouse, settings, typer.echo, cluster=cluster)
    if former := _former(settings):
        _tell_of_end(former, settings.streams())
        consent("Do it?", yes=yes)
        end(settings, clickhouse, former)
        _begin(settings, clickhouse, settings.streams())
        return
    if shards is not None and (rest := unfinished(settings, clickhouse)):
        typer.echo(
            f"the stream was not divided to the end: {_slots(rest)} begin anew, and what lies between is copied from "
            "the outbox. Let the workers run",
            err=True,
        )
        consent("Do it?", yes=yes)
        _begin(settings, clickhouse, rest)
        return
    note_if_skipping(clickhouse, settings)
    apply_postgres(settings, typer.echo)
    if anew:
        typer.echo(rebind(clickhouse, settings))
    unread = count_unread(settings, clickhouse)
    if unread.events:
        typer.echo(
            f"{unread.events} events ({unread.which}) are in the outbox and not in "
            "ClickHouse. Those from before the slot are copied by `outhaul backfill`, when reader and worker run"
        )


def _former(settings: Settings) -> list[Settings]:
    with connect(settings.postgres_dsn.get_secret_value()) as conn:
        check_server(conn)
    with connect_stream(settings) as conn:
        return former_streams(conn, settings)


def _tell_of_end(former: Sequence[Settings], streams: Sequence[Settings]) -> None:
    typer.echo(
        f"the stream is divided otherwise: {_slots(former)} end, {_slots(streams)} begin, and what "
        "lies between is copied from the outbox. Stop the readers of before by SIGTERM first, and let the workers run",
        err=True,
    )


def _slots(streams: Sequence[Settings]) -> str:
    return ", ".join(stream.slot for stream in streams)


def _begin(settings: Settings, clickhouse: ClickHouse, streams: Sequence[Settings]) -> None:
    apply_postgres(settings, typer.echo, without_slots=True)
    with output.range_bar("healing") as on_range:
        for stream, copied in begin(streams, clickhouse, waiting=_say_waiting, on_range=on_range):
            typer.echo(f"{stream.slot} begins; {copied:,} events were copied")
    typer.echo(f"set OUTHAUL_SHARDS={settings.shards} for every process; then start the readers")


def _say_waiting() -> None:
    typer.echo("waiting for transactions that are open (pg_stat_activity, backend_xid IS NOT NULL)", err=True)

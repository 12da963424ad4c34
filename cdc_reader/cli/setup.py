"""`outhaul setup` -> missing objects are created in Postgres and ClickHouse, or their SQL is printed.

Edge: the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from outhaul.cdc_reader.cli import output
from outhaul.cdc_reader.cli.confirmation import consent
from outhaul.cdc_reader.operate.setup import (
    apply_clickhouse,
    apply_postgres,
    check_not_newer,
    migrations,
    note_if_skipping,
    print_sql,
    rebind,
)
from outhaul.cdc_reader.postgres.connect import connect_primary, connect_stream
from outhaul.cdc_reader.postgres.preflight import check_server
from outhaul.cdc_reader.slots.plan import count_unread
from outhaul.cdc_reader.slots.reshard import begin, end, former_streams, unfinished
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.settings import MAX_SHARDS, Settings, Stream, load

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT_S = 60


def setup(
    *,
    shards: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_SHARDS, help="Divide the stream among this many readers; 1: one stream again."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the number of shards is changed.")] = False,
    show: Annotated[bool, typer.Option("--print-sql", help="Print the SQL for a DBA instead of applying it.")] = False,
    cluster: Annotated[
        str, typer.Option(metavar="NAME", help="Create ClickHouse's tables as replicated, on this cluster.")
    ] = "",
    with_rebind: Annotated[
        bool, typer.Option("--rebind", help="Continue from another server's slot, after a failover or a restore.")
    ] = False,
) -> None:
    """Create what is missing: table, publication, slot and roles in Postgres, tables in ClickHouse.

    Example: outhaul setup --print-sql | less
    """
    settings = load() if shards is None else load(shards=shards)
    if show:
        for part in print_sql(settings, cluster):
            typer.echo(part)
        return
    with ClickHouse.of(settings, timeout_s=_TIMEOUT_S) as clickhouse:
        check_not_newer(clickhouse, settings)
        # ClickHouse first: a slot keeps WAL from its creation on, so it is created last, after everything else.
        apply_clickhouse(clickhouse, settings, typer.echo, cluster=cluster)
        for how in migrations(clickhouse, settings):
            typer.echo(how)
        if former := _former(settings):
            _reshard(settings, clickhouse, former, yes=yes)
        elif shards is not None and (rest := unfinished(settings, clickhouse)):
            _finish_reshard(settings, clickhouse, rest, yes=yes)
        else:
            _create(settings, clickhouse, with_rebind=with_rebind)


def _reshard(settings: Settings, clickhouse: ClickHouse, former: list[Stream], *, yes: bool) -> None:
    _print_reshard(former, settings.streams())
    consent("Change the shards?", yes=yes)
    end(settings, clickhouse, former)
    _begin(settings, clickhouse, settings.streams())


def _finish_reshard(settings: Settings, clickhouse: ClickHouse, rest: Sequence[Stream], *, yes: bool) -> None:
    typer.echo(
        f"an earlier change of the shards was not completed. Plan: create {_slots(rest)} again, and copy the "
        "events in between from the outbox; nothing is lost. Keep the workers running",
        err=True,
    )
    consent("Change the shards?", yes=yes)
    _begin(settings, clickhouse, rest)


def _create(settings: Settings, clickhouse: ClickHouse, *, with_rebind: bool) -> None:
    note_if_skipping(clickhouse, settings)
    apply_postgres(settings, typer.echo)
    if with_rebind:
        typer.echo(rebind(clickhouse, settings))
    unread = count_unread(settings.undivided, clickhouse)
    if unread.events:
        typer.echo(
            f"{unread.events} events ({unread.which}) are in the outbox and not in "
            "ClickHouse. To copy those from before the slot, start reader and worker and type: outhaul backfill"
        )


def _former(settings: Settings) -> list[Stream]:
    with connect_primary(settings) as conn:
        check_server(conn)
    with connect_stream(settings) as conn:
        return former_streams(conn, settings)


def _print_reshard(former: Sequence[Stream], streams: Sequence[Stream]) -> None:
    typer.echo(
        f"the number of shards changes. Plan: drop {_slots(former)}, create {_slots(streams)}, and copy the events in "
        "between from the outbox; nothing is lost. First stop the old readers with SIGTERM; keep the workers running",
        err=True,
    )


def _slots(streams: Sequence[Stream]) -> str:
    return ", ".join(stream.slot for stream in streams)


def _begin(settings: Settings, clickhouse: ClickHouse, streams: Sequence[Stream]) -> None:
    apply_postgres(settings, typer.echo, without_slots=True)
    with output.range_bar("healing") as on_range:
        for stream, copied in begin(streams, clickhouse, waiting=_print_waiting, on_range=on_range):
            typer.echo(f"{stream.slot} is created; {copied:,} events were copied")
    typer.echo(f"set OUTHAUL_SHARDS={settings.shards} for every process; then start the readers")


def _print_waiting() -> None:
    typer.echo(
        "waiting for open transactions to end (pg_stat_activity, backend_xid IS NOT NULL; pg_prepared_xacts)", err=True
    )

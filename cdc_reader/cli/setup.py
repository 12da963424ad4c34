"""`outhaul setup`: create what is missing on both sides, or print it."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc_reader.setup import apply_clickhouse, apply_postgres, note_if_skipping, print_sql, rebind
from cdc_reader.slot_care.plan import count_unread
from sink.clickhouse import ClickHouse
from sink.settings import load

_TIMEOUT_S = 60


def setup(
    *,
    show: Annotated[bool, typer.Option("--print-sql", help="Print the SQL for a DBA instead of applying it.")] = False,
    anew: Annotated[
        bool, typer.Option("--rebind", help="Go on from the slot of another server: after a failover or a restore.")
    ] = False,
) -> None:
    """Create table, publication, slot and roles in Postgres and the tables in ClickHouse, where they are missing.

    Example: outhaul setup --print-sql | less
    """
    settings = load()
    if show:
        for part in print_sql(settings):
            typer.echo(part)
        return
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=_TIMEOUT_S)
    # ClickHouse first: a slot keeps WAL from its creation on, so it comes last, when everything else is known to work.
    apply_clickhouse(clickhouse, settings, typer.echo)
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

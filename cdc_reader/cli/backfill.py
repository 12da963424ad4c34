"""`outhaul backfill`: rows that were in the outbox before the slot existed, copied beside the live stream."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cdc_reader.cli import paper
from cdc_reader.outbox import heal as healing
from cdc_reader.outbox.due import due, note_done
from cdc_reader.outbox.line import behind_the_slot
from cdc_reader.outbox.sides import Scope
from cdc_reader.slot_plan import count_unread
from sink import schema
from sink.clickhouse import ClickHouse
from sink.errors import Exit
from sink.settings import load


def backfill(
    *,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=16, help="Readers at a time.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, copy nothing.")] = False,
    wait_s: Annotated[float, typer.Option("--wait", help="Seconds for the slot to come past what is committed.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Copy what the outbox holds and ClickHouse lacks, in ranges of ids; run it again where it was interrupted.

    Reader and worker must run: the stream brings what commits from now on, the copy what was there before.

    Example: outhaul backfill --jobs 4
    """
    settings = load()
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=healing.ASK_TIMEOUT_S)
    schema.check(clickhouse, settings)
    if dry_run:
        unread = count_unread(settings, clickhouse)
        found: dict[str, float | None] = {
            "to_copy": unread.events,
            "first_id": unread.first_id,
            "last_id": unread.last_id,
        }
    else:
        number = due(clickhouse, settings)
        try:
            with behind_the_slot(settings, within_s=wait_s) as line, paper.range_bar("copying") as on_range:
                done = healing.heal(settings, line, Scope(), on_range, patience_s=120.0, threads=jobs)
        except KeyboardInterrupt:
            typer.echo("outhaul: interrupted; what is stored stays. Go on with: outhaul backfill", err=True)
            raise typer.Exit(Exit.NOT_FINE) from None
        note_done(clickhouse, settings, number)
        found = {
            "rows": done.tally.rows,
            "copied": done.stored,
            "dead_letters": done.dead_letters,
            "seconds": round(done.seconds, 2),
        }
    clickhouse.close()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        paper.facts([(name.replace("_", " "), f"{value:,}" if value else str(value)) for name, value in found.items()])

"""`outhaul backfill`: rows that were in the outbox before the slot existed, copied beside the live stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_reader.cli import paper
from cdc_reader.cli.servers import both_sides
from cdc_reader.outbox import heal as healing
from cdc_reader.outbox.due import due, note_done
from cdc_reader.outbox.line import behind_the_slot
from cdc_reader.outbox.sides import Scope
from cdc_reader.slot_plan import count_unread
from sink.errors import Exit
from sink.settings import Settings, load

if TYPE_CHECKING:
    from sink.clickhouse import ClickHouse


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
    with both_sides(settings) as clickhouse:
        found = _count(settings, clickhouse) if dry_run else _copy(settings, clickhouse, jobs, wait_s)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        paper.facts([(name.replace("_", " "), f"{value:,}" if value else str(value)) for name, value in found.items()])


def _count(settings: Settings, clickhouse: ClickHouse) -> dict[str, float | None]:
    unread = count_unread(settings, clickhouse)
    return {"to_copy": unread.events, "first_id": unread.first_id, "last_id": unread.last_id}


def _copy(settings: Settings, clickhouse: ClickHouse, jobs: int, wait_s: float) -> dict[str, float | None]:
    number = due(clickhouse, settings)
    try:
        with behind_the_slot(settings, within_s=wait_s) as line, paper.range_bar("copying") as on_range:
            done = healing.heal(settings, line, Scope(), on_range, patience_s=120.0, threads=jobs)
    except KeyboardInterrupt:
        typer.echo("outhaul: interrupted; what is stored stays. Go on with: outhaul backfill", err=True)
        raise typer.Exit(Exit.NOT_FINE) from None
    note_done(clickhouse, settings, number)
    return {
        "rows": done.tally.rows,
        "copied": done.stored,
        "dead_letters": done.dead_letters,
        "seconds": round(done.seconds, 2),
    }

"""`outhaul backfill` -> rows that were in the outbox before the slot existed are copied, beside the live stream.

Edge: the command line.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from outhaul.cdc_reader.cli import options, output
from outhaul.cdc_reader.cli.connections import both_sides
from outhaul.cdc_reader.outbox import heal as healing
from outhaul.cdc_reader.outbox.heal_due import due, note_done
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.cdc_reader.slots.plan import count_unread_of
from outhaul.sink.errors import Exit
from outhaul.sink.settings import Outbox, load

if TYPE_CHECKING:
    from outhaul.sink.clickhouse import ClickHouse


def backfill(
    *,
    table: options.EachOrOne = "",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=16, help="Ranges copied at once.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the rows to copy.")] = False,
    wait_s: options.WaitS = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Copy rows that the outbox has and ClickHouse lacks, in ranges of ids. After an interruption, run it again.

    Reader and worker must run: the stream delivers new commits, this command copies the rows from before.

    Example: outhaul backfill --jobs 4
    """
    settings = load()
    chosen = options.each(settings, table)
    are_all = len(chosen) == len(settings.outboxes())
    with both_sides(settings) as clickhouse:
        notes = due(clickhouse, settings.streams()) if are_all and not dry_run else ()
        for outbox in chosen:
            found = _count(outbox, clickhouse) if dry_run else _copy(outbox, jobs, wait_s)
            named = {} if len(settings.outboxes()) == 1 else {"table": outbox.table}
            _print(named, found, as_json=as_json)
        note_done(clickhouse, notes)


def _print(named: dict[str, str], found: dict[str, float | None], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(named | found))
        return
    figures = [(name.replace("_", " "), f"{value:,}" if value else str(value)) for name, value in found.items()]
    output.facts([*named.items(), *figures])


def _count(outbox: Outbox, clickhouse: ClickHouse) -> dict[str, float | None]:
    unread = count_unread_of(outbox, outbox.settings.undivided, clickhouse)
    return {"to_copy": unread.events, "first_id": unread.first_id, "last_id": unread.last_id}


def _copy(outbox: Outbox, jobs: int, wait_s: float) -> dict[str, float | None]:
    try:
        with (
            behind_the_slot(outbox.settings.streams(), within_s=wait_s) as line,
            output.range_bar("copying") as on_range,
        ):
            done = healing.heal(
                outbox, outbox.settings.undivided, line, Scope(), on_range, give_up_s=120.0, threads=jobs
            )
    except KeyboardInterrupt:
        typer.echo("outhaul: interrupted; copied rows stay stored. To continue, type: outhaul backfill", err=True)
        raise typer.Exit(Exit.NOT_FINE) from None
    return {
        "rows": done.tally.rows,
        "copied": done.stored,
        "dead_letters": done.dead_letters,
        "seconds": round(done.seconds, 2),
    }

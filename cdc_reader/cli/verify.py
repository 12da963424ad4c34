"""`outhaul verify`: the outbox against ClickHouse, to the id; with `--repair`, what is missing is stored."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cdc_reader.cli import paper
from cdc_reader.cli.servers import both_sides
from cdc_reader.outbox import heal as healing
from cdc_reader.outbox.due import due, note_done
from cdc_reader.outbox.line import behind_the_slot
from cdc_reader.outbox.sides import Scope
from sink.errors import Exit
from sink.settings import load

_LAST_ID = (1 << 63) - 1
_KINDS = ("missing", "extra", "differing", "repeated")


def verify(
    *,
    since: Annotated[datetime | None, typer.Option(help="Events from this time on, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Events before this time, UTC.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Compare contents, not ids alone.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Store what is missing; beside a running pipeline.")] = False,
    from_id: Annotated[int | None, typer.Option(help="Go on from this id, after an interruption.")] = None,
    wait_s: Annotated[float, typer.Option("--wait", help="Seconds for the slot to come past what is committed.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare the outbox with ClickHouse: name what is missing, extra, differing or there twice; exit 1 if any.

    Example: outhaul verify --deep --repair
    """
    settings = load()
    scope = Scope(deep, _utc(since), _utc(until), intervals=() if from_id is None else ((from_id, _LAST_ID),))
    started = time.monotonic()
    last_id = from_id
    try:
        with (
            both_sides(settings) as clickhouse,
            behind_the_slot(settings, within_s=wait_s) as line,
            paper.range_bar("comparing") as show,
        ):

            def on_range(found: Any, last: int) -> None:
                nonlocal last_id
                last_id = found.last + 1
                show(found, last)

            if repair:
                number = due(clickhouse, settings) if scope.is_whole and not scope.intervals else None
                done = healing.heal(settings, line, scope, on_range, patience_s=120.0)
                tally, stored = done.tally, done.stored
                note_done(clickhouse, settings, number)
            else:
                tally, stored = healing.verify(settings, line, scope, on_range), 0
    except KeyboardInterrupt:
        typer.echo(f"outhaul: interrupted; go on with: outhaul verify --from-id {last_id or 0}", err=True)
        raise typer.Exit(Exit.NOT_FINE) from None
    found = {kind: getattr(tally, kind) for kind in _KINDS}
    report = {
        "rows": tally.rows,
        **found,
        "repaired": stored,
        "dead_letters": tally.dead_letters,
        "ids": {kind: tally.ids.get(kind, []) for kind in _KINDS},
        "deep": deep,
        "not_compared": tally.not_compared,
        "seconds": round(time.monotonic() - started, 2),
    }
    if as_json:
        typer.echo(json.dumps(report))
    else:
        paper.facts(
            [
                ("compared", f"{tally.rows:,} rows in {report['seconds']} s, {'contents' if deep else 'ids'}"),
                *((kind, paper.some(tally.ids.get(kind, []), found[kind])) for kind in _KINDS),
                ("dead letters", f"{tally.dead_letters:,}"),
                *([("not compared", ", ".join(tally.not_compared))] if tally.not_compared else []),
                *([("repaired", f"{stored:,}")] if repair else []),
                *([("go on", "outhaul verify --repair")] if tally.missing and not repair else []),
            ]
        )
    missing = 0 if repair else tally.missing
    raise typer.Exit(Exit.NOT_FINE if missing or tally.extra or tally.differing or tally.repeated else Exit.FINE)


def _utc(time_: datetime | None) -> datetime | None:
    return time_.replace(tzinfo=UTC) if time_ is not None and time_.tzinfo is None else time_

"""`outhaul verify` -> the differences between outbox and ClickHouse, id by id; `--repair` stores missing events.

`outhaul verify --views` -> the differences between materialized views and the queries that they were made of.

Edge: the command line.
"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outhaul.cdc_reader.cli import options, output
from outhaul.cdc_reader.cli.connections import both_sides
from outhaul.cdc_reader.outbox import heal as healing
from outhaul.cdc_reader.outbox.compare_views import compare_views
from outhaul.cdc_reader.outbox.heal_due import due, note_done
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.sink.errors import Exit
from outhaul.sink.retention import retention_of
from outhaul.sink.settings import Outbox, Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outhaul.cdc_reader.outbox.compare import Compared
    from outhaul.cdc_reader.outbox.compare_views import ViewDifference
    from outhaul.cdc_reader.outbox.snapshot import Line
    from outhaul.sink.clickhouse import ClickHouse

_LAST_ID = (1 << 63) - 1
_KINDS = ("missing", "extra", "differing", "repeated")
_EXPIRED = "ClickHouse removes events by {}: delete these from the outbox, too, or lengthen the TTL"
_NOT_STORED = "look for them in `outhaul dlq list` and in the worker's log, then compare again"


def verify(
    *,
    since: options.Since = None,
    until: options.Until = None,
    table: options.EachOrOne = "",
    deep: Annotated[bool, typer.Option("--deep", help="Compare contents, not only ids.")] = False,
    views: Annotated[
        bool,
        typer.Option(
            "--views",
            help="Compare the materialized views on the event table with their queries, instead of the outbox; this "
            "reads whole tables.",
        ),
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Store missing events; the pipeline must run.")] = False,
    from_id: Annotated[int | None, typer.Option(help="Continue from this id after an interruption.")] = None,
    wait_s: options.WaitS = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare the outbox with ClickHouse; list missing, extra, differing and repeated events. Exit 1 if there are any.

    With --views, compare the materialized views on the event table with their queries.

    Example: outhaul verify --deep --repair
    """
    if views and (deep or repair or since or until or from_id is not None):
        raise typer.BadParameter("--views compares whole views: only --table, --wait and --json go with it")
    settings = load()
    chosen = options.each(settings, table)
    if views:
        raise typer.Exit(_verify_views(settings, chosen, wait_s, as_json=as_json))
    if from_id is not None:
        # An id belongs to one table.
        chosen = (options.one(settings, table),)
    scope = Scope(deep, since, until, intervals=() if from_id is None else ((from_id, _LAST_ID),))
    is_whole = scope.is_whole and not scope.intervals and len(chosen) == len(settings.outboxes())
    is_fine = True
    with both_sides(settings) as clickhouse:
        notes = due(clickhouse, settings.streams()) if repair and is_whole else ()
        with behind_the_slot(settings.streams(), within_s=wait_s) as line:
            for outbox in chosen:
                named = {} if len(settings.outboxes()) == 1 else {"table": outbox.table}
                report = _compare(outbox, line, scope, named, repair=repair)
                report["ttl"] = _ttl(clickhouse, outbox) if repair and report["missing"] else ""
                _print(report, repair=repair, as_json=as_json)
                is_fine &= not any(report[kind] for kind in _KINDS if kind != "missing" or not repair)
                is_fine &= not report["still_missing"]
        note_done(clickhouse, notes)
    raise typer.Exit(Exit.FINE if is_fine else Exit.NOT_FINE)


def _verify_views(settings: Settings, outboxes: Iterable[Outbox], wait_s: float, *, as_json: bool) -> Exit:
    found: list[ViewDifference] = []
    with both_sides(settings) as clickhouse, behind_the_slot(settings.streams(), within_s=wait_s) as line:
        for outbox in outboxes:
            for one in compare_views(clickhouse, outbox, line.lsn):
                found.append(one)
                if not as_json:
                    _print_view(one)
    if as_json:
        typer.echo(json.dumps({"views": [asdict(one) for one in found]}, default=str))
    elif not found:
        typer.echo("no materialized view gets what is inserted into the event table")
    return Exit.FINE if all(one.is_fine for one in found) else Exit.NOT_FINE


def _print_view(found: ViewDifference) -> None:
    rows = [("view", found.views), *([("target", found.target)] if found.target else [])]
    if found.not_compared:
        rows.append(("not compared", found.not_compared))
    else:
        since = f", of events since {found.since:%Y-%m-%d %H:%M:%S} UTC" if found.since else ""
        rows += [
            ("compared", f"{found.compared:,} {found.unit}{since}"),
            ("missing", f"{found.missing:,}"),
            ("extra", f"{found.extra:,}"),
        ]
    if found.refused:
        ids = f" (ids {', '.join(found.refused_ids)})" if found.refused_ids else ""
        rows.append(("refused", f"{found.refused:,} events{ids}: {found.reason}"))
    if found.left_out:
        rows.append(("columns left out", ", ".join(found.left_out)))
    if not found.is_exact and not found.not_compared:
        rows.append(("not exact", "events were stored meanwhile: `outhaul pause`, then compare again"))
    output.facts(rows)


def _compare(outbox: Outbox, line: Line, scope: Scope, named: dict[str, str], *, repair: bool) -> dict[str, Any]:
    """Compare one outbox; if that is interrupted, print how to continue."""
    started = time.monotonic()
    next_id = scope.intervals[0][0] if scope.intervals else None
    # First and last missing id of each range, by the range's first id.
    lacking: dict[int, tuple[int, int]] = {}
    left = healing.Tally()
    try:
        with output.range_bar("comparing") as show:

            def on_range(found: Compared, last: int) -> None:
                nonlocal next_id
                next_id = found.last + 1
                if len(found.missing):
                    lacking[found.first] = int(found.missing[0]), int(found.missing[-1])
                show(found, last)

            if repair:
                done = healing.heal(outbox, outbox.settings.undivided, line, scope, on_range, give_up_s=120.0)
                tally, stored = done.tally, done.stored
                if lacking:
                    # What a worker has stored may be gone already: a TTL removes old events within moments.
                    intervals = tuple(lacking[first] for first in sorted(lacking))
                    left = healing.verify(outbox, line, replace(scope, deep=False, intervals=intervals), _quiet)
            else:
                tally, stored = healing.verify(outbox, line, scope, on_range), 0
    except KeyboardInterrupt:
        which = "".join(f" --table {shlex.quote(name)}" for name in named.values())
        which += "" if next_id is None else f" --from-id {next_id}"
        typer.echo(f"outhaul: interrupted. To continue, type: outhaul verify{which}", err=True)
        raise typer.Exit(Exit.NOT_FINE) from None
    found = {kind: getattr(tally, kind) for kind in _KINDS}
    return {
        **named,
        "rows": tally.rows,
        **found,
        "repaired": min(stored, max(0, tally.missing - left.missing)),
        "still_missing": left.missing,
        "dead_letters": tally.dead_letters,
        "ids": {kind: tally.ids.get(kind, []) for kind in _KINDS} | {"still_missing": left.ids.get("missing", [])},
        "deep": scope.deep,
        "not_compared": tally.not_compared,
        "seconds": round(time.monotonic() - started, 2),
    }


def _quiet(_found: Compared, _last: int) -> None:
    """Show no progress: what is counted again is a part of what was compared."""


def _ttl(clickhouse: ClickHouse, outbox: Outbox) -> str:
    """Return the rule by which ClickHouse removes old events; empty if the table has none."""
    found = retention_of(clickhouse, outbox.clickhouse_table)
    return found.rule if found else ""


def _print(report: dict[str, Any], *, repair: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
        return
    output.facts(
        [
            *([("outbox", report["table"])] if "table" in report else []),
            (
                "compared",
                f"{report['rows']:,} rows in {report['seconds']} s, {'contents' if report['deep'] else 'ids'}",
            ),
            *((kind, output.some(report["ids"][kind], report[kind])) for kind in _KINDS),
            ("dead letters", f"{report['dead_letters']:,}"),
            *([("not compared", ", ".join(report["not_compared"]))] if report["not_compared"] else []),
            *([("repaired", f"{report['repaired']:,}")] if repair else []),
            *(
                [("still missing", output.some(report["ids"]["still_missing"], report["still_missing"]))]
                if report["still_missing"]
                else []
            ),
            *([("TTL", _EXPIRED.format(report["ttl"]))] if report["ttl"] else []),
            *([("to do", _NOT_STORED)] if report["still_missing"] and not report["ttl"] else []),
            *([("to repair", "outhaul verify --repair")] if report["missing"] and not repair else []),
        ]
    )

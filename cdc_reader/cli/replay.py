"""`outhaul replay` -> chosen rows of the outbox that a table lacks are stored in it; the table may be a new one.

Edge: the command line.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from outhaul.cdc_reader.cli import options, output
from outhaul.cdc_reader.cli.connections import both_sides
from outhaul.cdc_reader.outbox import heal as healing
from outhaul.cdc_reader.outbox.id_ranges import Scope
from outhaul.cdc_reader.outbox.snapshot import behind_the_slot
from outhaul.sink import trial
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.position import Lsn
from outhaul.sink.quoting import clickhouse_identifier
from outhaul.sink.settings import Outbox, load

if TYPE_CHECKING:
    from outhaul.sink.clickhouse import ClickHouse

_LONGEST_NAME = 63
_INTERVAL = re.compile(r"(-?\d{1,19})(?:-(-?\d{1,19}))?")
_LEAST_ID, _GREATEST_ID = -(1 << 63), (1 << 63) - 1


def replay(
    *,
    table: options.One = "",
    since: options.Since = None,
    until: options.Until = None,
    lsn: Annotated[str, typer.Option(help="From the first event that event_log has at or after this LSN.")] = "",
    ids: Annotated[str, typer.Option(help="Ids and ranges of ids, for example 7,100-200.")] = "",
    kind: Annotated[list[str] | None, typer.Option("--type", help="Events of this type; may be repeated.")] = None,
    into: Annotated[str, typer.Option(help="Target table; created like event_log if missing.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the rows to store.")] = False,
    wait_s: options.WaitS = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Store chosen rows of the outbox that ClickHouse lacks. Rows that ClickHouse has are not changed.

    Example: outhaul replay --since 2026-11-01 --type user_created --into event_log_rebuilt
    """
    outbox = options.one(load(), table)
    if len(into) > _LONGEST_NAME:
        raise FatalError(
            f"{into!r} is too long for a table", todo=f"Use at most {_LONGEST_NAME} characters", exit_code=Exit.USAGE
        )
    with both_sides(outbox.settings) as clickhouse:
        scope = Scope(
            since=since,
            until=until,
            types=tuple(kind or ()),
            intervals=_intervals(ids) if ids else _from_lsn(clickhouse, outbox, lsn),
        )
        with (
            behind_the_slot(outbox.settings.streams(), within_s=wait_s) as line,
            output.range_bar("replaying") as on_range,
        ):
            if dry_run and into and not clickhouse.rows(f"EXISTS TABLE {clickhouse_identifier(into)}")[0][0]:
                # The table would be created empty: all rows but the dead letters are missing.
                tally, stored = healing.verify(outbox, line, scope, on_range), 0
                tally.missing = tally.rows - tally.dead_letters
            elif dry_run:
                tally, stored = healing.verify(outbox, line, scope, on_range, into=into), 0
            else:
                if into:
                    like = clickhouse_identifier(outbox.clickhouse_table)
                    clickhouse.command(f"CREATE TABLE IF NOT EXISTS {clickhouse_identifier(into)} AS {like}")
                done = healing.heal(
                    outbox, outbox.settings.undivided, line, scope, on_range, give_up_s=120.0, into=into
                )
                tally, stored = done.tally, done.stored
                if into and into not in {each.clickhouse_table for each in outbox.settings.outboxes()}:
                    trial.expect(clickhouse, outbox.settings, into, outbox.clickhouse_table)
    found = {"rows": tally.rows, "missing": tally.missing, "stored": stored, "into": into or outbox.clickhouse_table}
    if as_json:
        typer.echo(json.dumps(found))
    else:
        output.facts([(name, str(value)) for name, value in found.items()])


def _intervals(text: str) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for part in text.replace(" ", "").split(","):
        match = _INTERVAL.fullmatch(part)
        if match is None:
            raise FatalError(f"{part!r} is neither an id nor a range of ids", exit_code=Exit.USAGE)
        first, last = int(match[1]), int(match[2] or match[1])
        if not _LEAST_ID <= first <= last <= _GREATEST_ID:
            raise FatalError(f"{part!r} is not a range of ids", todo="Write the least first", exit_code=Exit.USAGE)
        found.append((first, last))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(found):
        # An id that is given twice is still one row.
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def _from_lsn(clickhouse: ClickHouse, outbox: Outbox, text: str) -> tuple[tuple[int, int], ...]:
    if not text:
        return ()
    try:
        lsn = Lsn.parse(text)
    except ValueError as error:
        raise FatalError(str(error), exit_code=Exit.USAGE) from None
    rows = clickhouse.rows(
        f"SELECT count(), min(id), max(id) FROM {clickhouse_identifier(outbox.clickhouse_table)} "  # noqa: S608 - quoted
        "WHERE cdc_source = {source:String} AND cdc_lsn >= {lsn:UInt64} AND cdc_lsn % 8 != 7",
        parameters={"source": outbox.settings.source, "lsn": int(lsn)},
    )
    count, first, last = rows[0]
    if not count:
        raise FatalError(
            f"event_log has no event at or after {lsn}", todo="Pass --ids or --since", exit_code=Exit.USAGE
        )
    return ((first, last),)

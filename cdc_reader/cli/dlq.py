"""`outhaul dlq ...` -> dead letters are listed, shown, retried, discarded or exported.

Edge: the command line.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outhaul.cdc_reader.cli import options
from outhaul.cdc_reader.cli.confirmation import consent
from outhaul.cdc_reader.operate import dead_letters as letters
from outhaul.cdc_reader.postgres.preflight import check_redis, checked_clickhouse
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.letters import dead_letters
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import Outbox, load

if TYPE_CHECKING:
    from collections.abc import Iterable

dlq = typer.Typer(name="dlq", no_args_is_help=True, help="Dead letters: events that ClickHouse cannot hold.")

_TIMEOUT_S = 60
_REASONS = 20
_SHOWN = 10
_SHOWN_CHARACTERS = 100

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Since = Annotated[
    datetime | None,
    typer.Option(parser=options.moment, metavar="TIME", help="Set aside since: 2026-01-31T12:00 (UTC), or 2h."),
]
Until = Annotated[
    datetime | None, typer.Option(parser=options.moment, metavar="TIME", help="Set aside before this time.")
]
Reason = Annotated[str, typer.Option(help="Only letters whose reason contains this text.", metavar="TEXT")]
All = Annotated[bool, typer.Option("--all", help="All letters that are not discarded.")]
Positions = Annotated[list[str] | None, typer.Argument(help="As `list` prints them: 0/1A2B3C#0", metavar="POSITION")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


def _filter(
    since: datetime | None, until: datetime | None, reason: str, *, discarded: bool = False
) -> dead_letters.Filter:
    since_us, until_us = (round(time.timestamp() * 1e6) if time else None for time in (since, until))
    return dead_letters.Filter(since_us, until_us, reason, discarded)


@dlq.command("list")
def list_(
    *,
    table: options.EachOrOne = "",
    since: Since = None,
    until: Until = None,
    reason: Reason = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="List at most this many.")] = 20,
    discarded: Annotated[bool, typer.Option("--discarded", help="Include discarded letters.")] = False,
    as_json: Json = False,
) -> None:
    """Count dead letters by reason, and list the newest.

    Example: outhaul dlq list --since 1d --reason infinity
    """
    wanted = _filter(since, until, reason, discarded=discarded)
    settings = load()
    for outbox in options.each(settings, table):
        named = {} if len(settings.outboxes()) == 1 else {"table": outbox.table}
        _list(outbox, wanted, limit, named, as_json=as_json)


def _list(outbox: Outbox, wanted: dead_letters.Filter, limit: int, named: dict[str, str], *, as_json: bool) -> None:
    with checked_clickhouse(outbox.settings, _TIMEOUT_S) as clickhouse:
        counted = dead_letters.summary(clickhouse, outbox, wanted, reasons=_REASONS)
        newest = dead_letters.newest(clickhouse, outbox, wanted, limit=limit)
    if as_json:
        found = {
            **named,
            "total": counted.total,
            "discarded": counted.discarded,
            "by_reason": [{"reason": text, "letters": count} for text, count in counted.by_reason],
            "newest": [letters.to_json(letter) for letter in newest],
        }
        typer.echo(letters.json_text(found))
        return
    typer.echo(f"{counted.total:,} dead letters" + "".join(f" of {name}" for name in named.values()))
    if counted.total:
        reasons = Table("letters", "reason")
        for text, count in counted.by_reason:
            reasons.add_row(f"{count:,}", escape(text))
        listed = Table("position", "set aside", "reason")
        for letter in newest:
            row = letters.to_json(letter)
            listed.add_row(row["position"], row["ingested_at"], escape(_short(letter.reason)))
        Console().print(reasons, listed)


@dlq.command()
def show(
    position: Annotated[str, typer.Argument(help="As `list` prints it.")],
    *,
    table: options.One = "",
    as_json: Json = False,
) -> None:
    """Show one dead letter with all its values, as Postgres prints them.

    Example: outhaul dlq show 0/1A2B3C#0
    """
    at = letters.position_of(position)
    outbox = options.one(load(), table)
    with checked_clickhouse(outbox.settings, _TIMEOUT_S) as clickhouse:
        found = dead_letters.find(clickhouse, outbox, [at])
    if not found:
        raise FatalError(f"no dead letter has position {at}", todo="`outhaul dlq list` prints the positions")
    typer.echo(letters.json_text(letters.to_json(found[0]), indent=None if as_json else 2))


@dlq.command()
def retry(
    positions: Positions = None,
    *,
    table: options.One = "",
    everything: All = False,
    reason: Reason = "",
    wait: Annotated[
        float,
        typer.Option(parser=options.duration(1), metavar="DURATION", help="Give up after this time without an answer."),
    ] = 60,
    as_json: Json = False,
) -> None:
    """Have the workers try to store dead letters again; letters that are stored are removed from the dead letters.

    First widen the column that was too narrow, or correct the letter's value. Exit code 1 unless all are stored.

    Example: outhaul dlq retry --reason "is outside what"
    """
    outbox = options.one(load(), table)
    with checked_clickhouse(outbox.settings, _TIMEOUT_S) as clickhouse:
        chosen = letters.chosen(clickhouse, outbox, positions or [], everything=everything, reason=reason)
    with Payloads.of(outbox.settings) as payloads:
        check_redis(outbox.settings, payloads)
        done = letters.retry(outbox, payloads, chosen, wait_s=wait)
    if as_json:
        typer.echo(letters.json_text(done.to_json()))
    else:
        _print_retried(done)
    raise typer.Exit(Exit.FINE if done.is_fine else Exit.NOT_FINE)


@dlq.command()
def discard(
    positions: Positions = None,
    *,
    table: options.One = "",
    everything: All = False,
    reason: Reason = "",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Discard dead letters: their values are deleted; id, reason and position stay.

    Example: outhaul dlq discard 0/1A2B3C#0
    """
    outbox = options.one(load(), table)
    with checked_clickhouse(outbox.settings, _TIMEOUT_S) as clickhouse:
        chosen = letters.chosen(clickhouse, outbox, positions or [], everything=everything, reason=reason)
        found = [one for one in dead_letters.find(clickhouse, outbox, chosen) if not one.discarded]
        for letter in found[:_SHOWN]:
            typer.echo(letters.json_text(letters.to_json(letter)), err=True)
        if len(found) > _SHOWN:
            typer.echo(f"and {len(found) - _SHOWN:,} more: `outhaul dlq export` shows all", err=True)
        if found:
            typer.echo(f"discarding deletes the values of {len(found):,} events; they cannot be restored", err=True)
            consent("Discard them?", yes=yes)
        done = letters.discard(clickhouse, outbox, found)
    unknown = [str(at) for at in sorted(set(chosen) - {letter.position for letter in found})]
    if as_json:
        typer.echo(letters.json_text({"discarded": done, "unknown": unknown}))
    else:
        typer.echo(f"{len(done):,} discarded" + "".join(f"\nno dead letter has position {name}" for name in unknown))
    raise typer.Exit(Exit.NOT_FINE if unknown else Exit.FINE)


@dlq.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="File to create; default: standard output.")] = None,
    *,
    table: options.One = "",
    form: Annotated[str, typer.Option("--format", help="jsonl: one JSON object per line.")] = "jsonl",
    since: Since = None,
    until: Until = None,
    reason: Reason = "",
) -> None:
    """Write dead letters with all their values, one JSON object per line, in order of position; no discarded ones.

    Example: outhaul dlq export letters.jsonl
    """
    if form != "jsonl":
        raise FatalError(f"unknown format {form!r}", todo="Pass --format jsonl", exit_code=Exit.USAGE)
    if file is not None and file.exists():
        raise FatalError(f"{file} already exists", todo="Name a new file", exit_code=Exit.USAGE)
    wanted = _filter(since, until, reason)
    outbox = options.one(load(), table)
    with checked_clickhouse(outbox.settings, _TIMEOUT_S) as clickhouse:
        _export(letters.exported(clickhouse, outbox, wanted), file)


def _export(lines: Iterable[str], file: Path | None) -> None:
    if file is None:
        for line in lines:
            typer.echo(line)
        return
    try:
        # An incomplete export keeps the name with .part.
        part = file.with_name(f"{file.name}.part")
        with part.open("w", encoding="utf-8") as out:
            count = sum(out.write(f"{line}\n") > 0 for line in lines)
        part.rename(file)
    except OSError as error:
        raise FatalError(f"{error.filename}: {error.strerror}", todo="Name a new file", exit_code=Exit.USAGE) from error
    typer.echo(f"{count:,} dead letters in {file}", err=True)


def _print_retried(done: letters.Retried) -> None:
    total = len(done.retried)
    typer.echo(f"{total:,} stored")
    for what, found in (("refused again", done.refused), ("failed", done.failed)):
        for name, why in list(found.items())[:_SHOWN]:
            typer.echo(f"{what}: {name}: {_short(why)}")
        if len(found) > _SHOWN:
            typer.echo(f"{what}: {len(found) - _SHOWN:,} more")
    for what, names in (("no dead letter has position", done.unknown), ("already discarded:", done.discarded)):
        for name in names[:_SHOWN]:
            typer.echo(f"{what} {name}")
    if done.unanswered:
        typer.echo(
            f"no worker answered for {len(done.unanswered):,} letters; a worker that starts later still retries them. "
            "Check that a worker runs (`outhaul worker`); retrying again is harmless",
            err=True,
        )


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} …"

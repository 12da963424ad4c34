"""`outhaul prune` -> rows that are older than an age and proven to be stored are deleted from the outbox.

Edge: the command line.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from outhaul.cdc_reader.cli import options
from outhaul.cdc_reader.cli.confirmation import consent
from outhaul.cdc_reader.operate.pruning.outbox_table import OutboxTable
from outhaul.cdc_reader.operate.pruning.prune import BATCH, PruneReport, PruneRequest
from outhaul.cdc_reader.operate.pruning.prune import prune as make_pass
from outhaul.cdc_reader.postgres.connect import connect_primary
from outhaul.cdc_reader.postgres.preflight import checked_clickhouse
from outhaul.sink.errors import Exit, FatalError, PipelineError, TransientError
from outhaul.sink.redis import failures
from outhaul.sink.settings import Outbox, Settings, load
from outhaul.sink.stopping import sleep_unless, stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT_S = 60


def prune(
    *,
    table: options.EachOrOne = "",
    older_than: Annotated[
        float | None,
        typer.Option(parser=options.age, metavar="AGE", show_default=False, help="Delete rows older than this: 7d."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be deleted.")] = False,
    every: Annotated[
        float,
        typer.Option(
            parser=options.duration(),
            metavar="DURATION",
            help="Repeat until SIGTERM, at this interval: 1h.",
            show_default=False,
        ),
    ] = 0,
    batch: Annotated[int, typer.Option(min=1, max=50_000, help="Rows per transaction.")] = BATCH,
    partitions_ahead: Annotated[int, typer.Option(min=0, max=1000, help="Create this many future partitions.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per pass.")] = False,
) -> None:
    """Delete old rows from the outbox after a check that ClickHouse has them. Rows that it lacks stay; then exit 1.

    Example: outhaul prune --older-than 7d --dry-run
    """
    settings = load()
    chosen = options.each(settings, table)
    failures.begin(settings, "prune")
    request = _request(settings, older_than, batch, partitions_ahead, dry_run=dry_run)
    pause_s = every
    if not dry_run:
        for outbox in chosen:
            _agree(outbox, request, yes=yes)
    signals = stop_signals()

    def stop() -> bool:
        return bool(signals)

    while True:
        is_fine = True
        try:
            for outbox in chosen:
                report = _pass(outbox, request, stop)
                is_fine &= not report.lacking
                named = {} if len(settings.outboxes()) == 1 else {"table": outbox.table}
                _print(named, report, as_json=as_json)
        except TransientError as error:
            if not pause_s:
                raise
            is_fine = False
            # The next pass tries again, and reports the error again if it persists.
            typer.echo(f"outhaul: {error}", err=True)
        except PipelineError:
            raise
        except Exception as error:
            failures.failed(error)
            raise
        if not pause_s or sleep_unless(stop, pause_s):
            raise typer.Exit(Exit.FINE if is_fine else Exit.NOT_FINE)


def _print(named: dict[str, str], report: PruneReport, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(named | report.to_json()))
    else:
        typer.echo("".join(f"{name}: " for name in named.values()) + described(report))


def _request(
    settings: Settings, older_than: float | None, batch: int, partitions_ahead: int, *, dry_run: bool
) -> PruneRequest:
    age = settings.prune_older_than if older_than is None else older_than
    if age is None:
        raise FatalError(
            "no age is given: neither --older-than nor OUTHAUL_PRUNE_OLDER_THAN",
            todo="Pass --older-than 7d",
            exit_code=Exit.USAGE,
        )
    return PruneRequest(age, batch, dry_run, partitions_ahead)


def _agree(outbox: Outbox, request: PruneRequest, *, yes: bool) -> None:
    cutoff = request.cutoff(datetime.now(UTC))
    with connect_primary(outbox.settings) as conn:
        table = OutboxTable(conn, outbox, dry_run=request.dry_run)
        count = table.count_old(cutoff)
        name = table.name
    with checked_clickhouse(outbox.settings, _TIMEOUT_S):
        pass
    typer.echo(
        f"{name} has {'many' if count is None else f'{count:,}'} rows before {cutoff.isoformat(timespec='seconds')}. "
        f"Rows that ClickHouse has for source {outbox.settings.source!r} will be deleted, {request.batch:,} per "
        "transaction",
        err=True,
    )
    consent("Delete them?", yes=yes)


def _pass(outbox: Outbox, request: PruneRequest, stop: Callable[[], bool]) -> PruneReport:
    with connect_primary(outbox.settings) as conn, checked_clickhouse(outbox.settings, _TIMEOUT_S) as clickhouse:
        table = OutboxTable(conn, outbox, dry_run=request.dry_run)
        return make_pass(table, clickhouse, outbox, request, stop)


def described(report: PruneReport) -> str:
    """Return a report as text."""
    would = "would be " if report.dry_run else ""
    lines = [f"{report.removed:,} rows before {report.cutoff} {would}removed, {report.examined:,} examined"]
    if report.batches:
        lines.append(f"in {report.batches:,} transactions, the longest {report.longest_batch_s:.3f} s")
    if report.partitions_dropped:
        lines.append(f"partitions {would}dropped: {', '.join(report.partitions_dropped)}")
    if report.partitions_created:
        lines.append(f"partitions {would}created: {', '.join(report.partitions_created)}")
    if report.locked:
        lines.append(f"{report.locked:,} rows stay until the next pass: they are locked, or were changed meanwhile")
    if not report.is_complete:
        lines.append("stopped before the end; the next pass continues")
    if report.lacking:
        named = ", ".join(map(str, report.lacking_ids))
        more = ", …" if report.lacking > len(report.lacking_ids) else ""
        lines.append(f"{report.lacking:,} old rows stay, because ClickHouse lacks them: id {named}{more}")
    if report.expired:
        lines.append(
            f"{report.expired:,} old rows stay, because ClickHouse removes events of their time by {report.ttl}, so "
            "nothing shows that it stored them. Prune with a shorter age than that"
        )
    return "\n".join(lines)

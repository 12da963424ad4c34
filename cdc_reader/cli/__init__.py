"""The console script `outhaul`: one command a file, and those that other folders add through the entry points.

Edge: the outermost line. An error of ours becomes one line on standard error and its exit code; a traceback is a bug.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import entry_points, version

import typer

from cdc_reader.cli.backfill import backfill
from cdc_reader.cli.dlq import dlq
from cdc_reader.cli.doctor import doctor
from cdc_reader.cli.exporter import exporter
from cdc_reader.cli.flower import flower
from cdc_reader.cli.pause import pause
from cdc_reader.cli.prune import prune
from cdc_reader.cli.reader import reader
from cdc_reader.cli.replay import replay
from cdc_reader.cli.resume import resume
from cdc_reader.cli.setup import setup
from cdc_reader.cli.slot import slot
from cdc_reader.cli.status import status
from cdc_reader.cli.top import top
from cdc_reader.cli.verify import verify
from cdc_reader.cli.worker import worker
from sink import logs
from sink.errors import Exit, PipelineError

app = typer.Typer(
    name="outhaul",
    help="Postgres transactional outbox to ClickHouse: every committed event, once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    epilog="Settings are OUTHAUL_* variables or outhaul.toml; try everything at once with `outhaul demo`.",
)
# In the order in which they are listed: what runs, what looks, what mends, what keeps house.
for _command, _short in (
    (setup, "Create what is missing in Postgres and ClickHouse."),
    (reader, "Stream committed events from the slot to the workers."),
    (worker, "Store batches in ClickHouse: Celery's worker, watched."),
    (exporter, "Metrics of slot, ClickHouse, Redis, and an audit."),
    (flower, "Workers, batches and queue in a browser."),
    (pause, "Let the reader take no rows; the slot is kept."),
    (resume, "Let a paused reader go on."),
    (status, "Slot, reader, sink and ClickHouse on one screen."),
    (top, "The same, live, with rates; q quits."),
    (doctor, "A checklist of all servers, with the fixes."),
    (verify, "Compare the outbox with ClickHouse, to the id."),
    (slot, "Show, create, drop, advance or reset the slot."),
    (backfill, "Copy what was in the outbox before the slot."),
    (replay, "Store chosen rows of the outbox again."),
    (dlq, "Dead letters: list, retry, discard, export."),
    (prune, "Delete old rows from the outbox that are stored."),
):
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_command.info.name, short_help=_short)
    else:
        # What is no option of ours is Celery's, or Flower's.
        _context = {"allow_extra_args": True, "ignore_unknown_options": True} if _command in {worker, flower} else {}
        app.command(short_help=_short, context_settings=_context)(_command)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"outhaul {version('outhaul')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    show: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    del show
    # What an operator asks for is printed; the log of a command is for what goes wrong. Processes set up their own.
    logs.configure("auto", level="WARNING")


@cache
def _join_commands() -> None:
    for entry in sorted(entry_points(group="outhaul.commands"), key=lambda entry: entry.name):
        command = entry.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(name=entry.name)(command)


def main() -> None:
    """Run the command line."""
    _join_commands()
    try:
        app()
    except PipelineError as error:
        typer.echo(f"outhaul: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(Exit.NOT_FINE)

"""Command line -> one command of the console script `outhaul`: a file of this folder, or an entry point.

Edge: the outermost line of the process. A `PipelineError` becomes one line on standard error and its exit code; a
traceback is a bug.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer

from outhaul.sink.errors import Exit, PipelineError
from outhaul.sink.settings.load import unknown_variables
from outhaul.sink.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.metadata import EntryPoint

app = typer.Typer(
    name="outhaul",
    help="Postgres transactional outbox to ClickHouse: every committed event, once. Try `outhaul demo`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
# Each is a file beside this one. `--help` lists them in this order: processes, views, repairs, housekeeping.
_COMMANDS = {
    "setup": "Create what is missing in Postgres and ClickHouse.",
    "reader": "Stream committed events from the slot to the workers.",
    "worker": "Store batches in ClickHouse with Celery's worker.",
    "exporter": "Serve metrics of Postgres, ClickHouse and Redis.",
    "flower": "Show workers, batches and queue in a browser.",
    "pause": "Stop reading from the slot; the slot is kept.",
    "resume": "Let a paused reader continue.",
    "status": "Slot, reader, sink and ClickHouse on one screen.",
    "top": "The same screen, live, with rates; q quits.",
    "settings": "Show the value of every setting, and its origin.",
    "doctor": "Check all servers; print a fix for each problem.",
    "verify": "Compare the outbox with ClickHouse, id by id.",
    "slot": "Show, create, drop, advance or reset the slot.",
    "backfill": "Copy rows that the outbox had before the slot.",
    "replay": "Store chosen rows of the outbox again.",
    "dlq": "Dead letters: list, retry, discard, export.",
    "prune": "Delete old, stored rows from the outbox.",
}
# Options that outhaul does not know are passed on to Celery, or to Flower.
_PASSES_ON = {"worker", "flower"}

# These print or log by themselves which OUTHAUL_* variables nobody reads.
_WARNS = {"reader", "worker", "exporter", "settings"}

_joined: set[str] = set()


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"outhaul {version('outhaul')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    *,
    show: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    del show
    # A command prints its result; its log has warnings and errors only. Long-running processes configure their own log.
    logs.configure("auto", level="WARNING")
    if context.invoked_subcommand not in _WARNS:
        for one in unknown_variables():
            typer.echo(f"outhaul: {one}", err=True)


def join(arguments: Sequence[str]) -> None:
    """Register the command that the arguments name; without one, all of them, which takes a second to import."""
    wanted = next((argument for argument in arguments if not argument.startswith("-")), "")
    others = {entry.name: entry for entry in entry_points(group="outhaul.commands") if _is_shipped(entry)}
    is_one = wanted in _COMMANDS.keys() | others.keys() and "_OUTHAUL_COMPLETE" not in os.environ
    for name, short in _COMMANDS.items():
        if (name == wanted or not is_one) and name not in _joined:
            _add(name, getattr(import_module(f"outhaul.cdc_reader.cli.{name}"), name), short)
    for name in sorted(others):
        if (name == wanted or not is_one) and name not in _joined:
            _add(name, others[name].load())


def _is_shipped(entry: EntryPoint) -> bool:
    """Return whether the command's module is installed: the wheel leaves out `chaos` and `bench`."""
    try:
        return find_spec(entry.module) is not None
    except ModuleNotFoundError:  # its package is not installed either
        return False


def _add(name: str, command: object, short: str | None = None) -> None:
    _joined.add(name)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, short_help=short)
    elif callable(command):
        context = {"allow_extra_args": True, "ignore_unknown_options": True} if name in _PASSES_ON else {}
        app.command(name=name, short_help=short, context_settings=context)(command)


def main() -> None:
    """Run the command line."""
    join(sys.argv[1:])
    try:
        app()
    except PipelineError as error:
        typer.echo(f"outhaul: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(Exit.NOT_FINE)

"""The console script `outhaul`: one command a file, and those that other folders add through the entry points.

Edge: the outermost line. An error of ours becomes one line on standard error and its exit code; a traceback is a bug.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING

import typer

from outhaul.sink.errors import Exit, PipelineError
from outhaul.sink.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(
    name="outhaul",
    help="Postgres transactional outbox to ClickHouse: every committed event, once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    epilog="Settings are OUTHAUL_* variables or outhaul.toml; try everything at once with `outhaul demo`.",
)
# Each is a file beside this one. In the order in which they are listed: what runs, what looks, what mends, what keeps
# house.
_COMMANDS = {
    "setup": "Create what is missing in Postgres and ClickHouse.",
    "reader": "Stream committed events from the slot to the workers.",
    "worker": "Store batches in ClickHouse: Celery's worker, watched.",
    "exporter": "Metrics of slot, ClickHouse, Redis, and an audit.",
    "flower": "Workers, batches and queue in a browser.",
    "pause": "Let the reader take no rows; the slot is kept.",
    "resume": "Let a paused reader go on.",
    "status": "Slot, reader, sink and ClickHouse on one screen.",
    "top": "The same, live, with rates; q quits.",
    "doctor": "A checklist of all servers, with the fixes.",
    "verify": "Compare the outbox with ClickHouse, to the id.",
    "slot": "Show, create, drop, advance or reset the slot.",
    "backfill": "Copy what was in the outbox before the slot.",
    "replay": "Store chosen rows of the outbox again.",
    "dlq": "Dead letters: list, retry, discard, export.",
    "prune": "Delete old rows from the outbox that are stored.",
}
# What is no option of ours is Celery's, or Flower's.
_PASSES_ON = {"worker", "flower"}

_joined: set[str] = set()


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


def join(arguments: Sequence[str]) -> None:
    """Make the command known that is asked for; all of them, a second's imports, where none is."""
    wanted = next((argument for argument in arguments if not argument.startswith("-")), "")
    others = {entry.name: entry for entry in entry_points(group="outhaul.commands")}
    is_one = wanted in _COMMANDS.keys() | others.keys() and "_OUTHAUL_COMPLETE" not in os.environ
    for name, short in _COMMANDS.items():
        if (name == wanted or not is_one) and name not in _joined:
            _add(name, getattr(import_module(f"outhaul.cdc_reader.cli.{name}"), name), short)
    for name in sorted(others):
        if (name == wanted or not is_one) and name not in _joined:
            _add(name, others[name].load())


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

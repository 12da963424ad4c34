"""`outhaul local ...` -> the embedded stack started, stopped or shown.

Edge: the terminal.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from outhaul.deploy.local.stack import NAMES, Stack, Status
from outhaul.sink.errors import Exit, PipelineError

app = typer.Typer(
    no_args_is_help=True, help="Run PostgreSQL, Valkey and the ClickHouse engine, embedded: for trials and tests."
)

_LOOK_S = 1.0

Services = Annotated[list[str] | None, typer.Argument(help=f"Any of {', '.join(NAMES)}. Default: all.")]
DataDir = Annotated[Path, typer.Option(help="Directory for data, logs and port numbers.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Fixed port. Default: a free one.")]
_HERE = Path(".outhaul")


@app.command()
def up(
    services: Services = None,
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all services answer.")] = False,
    data_dir: DataDir = _HERE,
    postgres_port: Port = None,
    redis_port: Port = None,
    clickhouse_port: Port = None,
    flower_port: Port = None,
    flower: Annotated[bool, typer.Option(help="Also start Flower, if it is installed and no service is named.")] = True,
) -> None:
    """Start services and print their URLs. Without --detach, Ctrl-C stops them.

    Example: outhaul local up --detach
    """
    ports = {"postgres": postgres_port, "redis": redis_port, "clickhouse": clickhouse_port, "flower": flower_port}
    stack = Stack(data_dir, {name: port for name, port in ports.items() if port is not None})
    stop = threading.Event()
    if not detach:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stop.set())
    with _ExitOnError():
        for note in stack.up(services):
            typer.echo(note, err=True)
        _print_table({name: one for name, one in stack.status().items() if name in NAMES})
        if flower and services is None:
            typer.echo(f"{'flower':<35}{stack.up_flower()}")
        if detach:
            return
        typer.echo("Press Ctrl-C to stop them.", err=True)
        chosen = services or list(NAMES)
        while not stop.wait(_LOOK_S):
            if not any(stack.pid(name) for name in chosen):
                typer.echo("All services have been stopped.", err=True)
                return
        stack.down(services)


@app.command()
def down(services: Services = None, *, data_dir: DataDir = _HERE) -> None:
    """Stop services, including those that another terminal started.

    Example: outhaul local down
    """
    with _ExitOnError():
        Stack(data_dir).down(services)


@app.command()
def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    data_dir: DataDir = _HERE,
) -> None:
    """Show which services run. The exit code is 1 if one does not.

    Example: outhaul local status
    """
    with _ExitOnError():
        found = Stack(data_dir).status()
    if as_json:
        typer.echo(json.dumps({name: asdict(one) for name, one in found.items()}, indent=2))
    else:
        _print_table(found)
    if not all(one.running for one in found.values()):
        raise typer.Exit(Exit.NOT_FINE)


@app.command()
def env(*, data_dir: DataDir = _HERE) -> None:
    """Print the URLs as export commands for a shell.

    Example: eval "$(outhaul local env)"
    """
    with _ExitOnError():
        variables = Stack(data_dir).env()
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


class _ExitOnError:
    """Prints a PipelineError as one line, and exits with its exit code."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PipelineError):
            typer.echo(f"outhaul local: {error}", err=True)
            sys.exit(int(error.exit_code))


def _print_table(found: dict[str, Status]) -> None:
    for one in found.values():
        state = f"pid {one.pid}, {one.version or 'does not answer'}" if one.running else "not running"
        typer.echo(f"{one.name:<11}{state:<24}{one.url or ''}")

"""`outhaul chaos` -> load and random faults for some minutes, then a verdict.

Edge: the terminal. The exit code is 1 if an event is missing or duplicated, in the table or in one of three views, or
if the slot passed one that was not stored.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from outhaul.cdc_reader.cli.options import duration
from outhaul.deploy.chaos.run import Options, run
from outhaul.deploy.local.stack import Stack
from outhaul.sink.errors import Exit
from outhaul.sink.telemetry import logs


def chaos(
    *,
    for_s: Annotated[
        float, typer.Option("--for", parser=duration(6), metavar="DURATION", help="Time of load and faults.")
    ] = 120,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, hidden=True, help="As --for, until the next release.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses the order and details of the faults.")] = 1,
    rows_per_s: Annotated[float, typer.Option(min=1, help="Events a second of each of the three writers.")] = 1000.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verdict as one JSON object on the last line.")
    ] = False,
    data_dir: Annotated[Path, typer.Option(help="Directory for data and logs; emptied first.")] = Path(
        ".outhaul/chaos"
    ),
) -> None:
    """Inflict random faults on an embedded pipeline under load, and count every event.

    Example: outhaul chaos --for 10m --seed 3 --json | tail -1
    """
    logs.configure("auto")
    Stack(data_dir).down()
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
    found = run(
        Options(for_s if minutes is None else minutes * 60, seed, rows_per_s),
        data_dir,
        lambda line: typer.echo(line, err=as_json),
    )
    outcome = "held" if found.is_clean else "DID NOT HOLD"
    typer.echo(
        f"the promise {outcome}: {found.faults} faults, {found.committed:,} committed, {found.stored:,} stored, "
        f"missing {found.missing}, duplicated {found.duplicated}, slot overruns {found.slot_overruns}, longest stall "
        f"{found.longest_stall_s} s (during {found.longest_stall_during})",
        err=as_json,
    )
    for view in found.views:
        typer.echo(
            f"view of {view.view}: {view.events:,} events, missing {view.missing:,}, twice {view.twice:,}", err=as_json
        )
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    raise typer.Exit(Exit.FINE if found.is_clean else Exit.NOT_FINE)

"""`outhaul top` -> a live screen for people; `outhaul status` is for scripts and logs.

Edge: the command line.
"""

from __future__ import annotations

from typing import Annotated

import typer

from outhaul.cdc_reader.cli import options
from outhaul.cdc_reader.operate.top.refresh_loop import show
from outhaul.sink.settings import load
from outhaul.sink.telemetry import logs


def top(
    *,
    shard: options.Shard = None,
    every: Annotated[
        float, typer.Option(parser=options.duration(0.2, 60), metavar="DURATION", help="Time between two refreshes.")
    ] = 1,
) -> None:
    """Show rates, lag, slot, ClickHouse and problems live; q quits.

    If a server does not answer, its last figures stay on the screen, with their age.

    Example: outhaul top --every 2
    """
    stream = options.stream(load(), shard)
    # A log line would overwrite a part of the screen. The screen itself shows problems.
    logs.configure("auto", level="ERROR")
    show(stream, every)

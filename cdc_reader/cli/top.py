"""`outhaul top`: a live screen for somebody who looks; `outhaul status` is for scripts and logs."""

from __future__ import annotations

from typing import Annotated

import typer

from outhaul.cdc_reader.cli import options
from outhaul.cdc_reader.operate.top.show import show
from outhaul.sink.settings import load
from outhaul.sink.telemetry import logs


def top(
    *,
    shard: options.Shard = None,
    every: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Watch rates, lag, slot, ClickHouse and what is wrong, live; q quits.

    A server that does not answer stops nothing: its last figures stay, with their age.

    Example: outhaul top --every 2
    """
    settings = options.stream(load(), shard)
    # A line of the log would stand in the midst of the screen; what is wrong is on it.
    logs.configure("auto", level="ERROR")
    show(settings, every)

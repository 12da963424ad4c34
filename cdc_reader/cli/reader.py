"""`outhaul reader` -> events stream from the slot until SIGTERM, then batches in flight are stored.

Edge: the command line. SIGINT and SIGHUP have the same effect. A second signal ends the process at once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from outhaul.cdc_reader.cli import options
from outhaul.cdc_reader.reader import run
from outhaul.cdc_reader.session import memory_tuning
from outhaul.sink.errors import Exit
from outhaul.sink.redis import failures
from outhaul.sink.settings import load
from outhaul.sink.settings.load import warn_of_unknown
from outhaul.sink.stopping import on_stop
from outhaul.sink.telemetry import logs, sentry


def reader(
    *,
    shard: options.Shard = None,
    standby: Annotated[bool, typer.Option(help="Wait while another reader holds the slot.")] = True,
) -> None:
    """Stream committed events from the slot to the workers.

    Example: OUTHAUL_POSTGRES_DSN=postgresql://... outhaul reader
    """
    stream = options.stream(load(), shard)
    settings = stream.settings
    logs.start(settings, slot=stream.slot)
    warn_of_unknown()
    memory_tuning.limit_allocators()
    sentry.configure(settings, "reader", slot=stream.slot)
    failures.begin(settings, "reader")
    asked: list[int] = []

    def stop(signum: int) -> None:
        if asked:
            os._exit(Exit.NOT_FINE)
        asked.append(signum)

    on_stop(stop)
    with failures.reporting_exit():
        run(stream, lambda: bool(asked), standby=standby)

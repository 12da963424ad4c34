"""`outhaul exporter` -> Prometheus metrics of three servers and an audit; a separate process.

Edge: the command line.
"""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from outhaul.cdc_reader.cli import options
from outhaul.cdc_reader.operate.exporter.run import run
from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.redis import failures
from outhaul.sink.settings import load
from outhaul.sink.settings.load import warn_of_unknown
from outhaul.sink.stopping import on_stop
from outhaul.sink.telemetry import logs, sentry


def exporter(
    *,
    every_s: Annotated[
        float,
        typer.Option(
            "--every", parser=options.duration(0.5), metavar="DURATION", help="Time between two polls of a server."
        ),
    ] = 5,
    audit_every_s: Annotated[
        float,
        typer.Option(
            "--audit-every",
            parser=options.duration(),
            metavar="DURATION",
            help="Time between two passes of the audit; 0: no audit.",
        ),
    ] = 60,
    views_every_s: Annotated[
        float,
        typer.Option(
            "--views-every",
            parser=options.duration(),
            metavar="DURATION",
            help="Time between two comparisons of the materialized views with their queries, which read whole tables, "
            "such as 6h; 0: none.",
        ),
    ] = 0,
) -> None:
    """Serve metrics of the slot, ClickHouse and Redis, and of a continuous audit of outbox and event table. Read-only.

    Example: OUTHAUL_METRICS_PORT=9463 outhaul exporter
    """
    settings = load()
    if not settings.metrics_port:
        raise FatalError(
            "the exporter has no port: OUTHAUL_METRICS_PORT is not set",
            todo="Set OUTHAUL_METRICS_PORT for this process, for example 9463",
            exit_code=Exit.SETTINGS,
        )
    logs.start(settings)
    warn_of_unknown()
    sentry.configure(settings, "exporter")
    failures.begin(settings, "exporter")
    stopping = threading.Event()
    on_stop(lambda _: stopping.set())
    with failures.reporting_exit():
        run(settings, stopping, every_s=every_s, audit_every_s=audit_every_s, views_every_s=views_every_s)

"""`outhaul worker` -> Celery's worker under a watchdog; options that outhaul does not know are passed to Celery.

Edge: the command line.
"""

from __future__ import annotations

from random import SystemRandom
from typing import Annotated

import typer

from outhaul.cdc_reader.postgres.preflight import check_stores, patiently
from outhaul.sink.process.watchdog import supervise
from outhaul.sink.redis import failures
from outhaul.sink.settings import Settings, load
from outhaul.sink.telemetry import logs, sentry


def worker(
    context: typer.Context,
    *,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Inserts at the same time.")] = 2,
) -> None:
    """Store batches in ClickHouse, with Celery's worker and its options. A watchdog restarts it if it ends or hangs.

    Example: outhaul worker -c 4 --loglevel WARNING
    """
    settings = load()
    logs.start(settings)
    sentry.configure(settings, "watchdog")
    failures.begin(settings, "watchdog")
    with failures.reporting_exit():
        patiently(lambda: check_stores(settings), lambda: False)

    def again() -> Settings:
        found = load()
        logs.start(found)
        check_stores(found)
        return found

    pruning = (
        ["--include", "outhaul.cdc_reader.operate.pruning.prune_task"] if settings.prune_older_than is not None else []
    )
    with failures.reporting_exit():
        code = supervise(settings, ["-c", str(concurrency), *pruning, *context.args], SystemRandom().random, again)
    raise typer.Exit(code)

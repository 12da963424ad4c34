"""`outhaul worker` -> Celery's worker under a watchdog; options that outhaul does not know are passed to Celery.

Edge: the command line.
"""

from __future__ import annotations

from random import SystemRandom
from typing import Annotated

import typer

from outhaul.cdc_reader.postgres.preflight import check_clickhouse, check_redis
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.process.watchdog import supervise
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import Settings, load
from outhaul.sink.telemetry import log_context, logs, sentry
from outhaul.sink.telemetry.scrub import scrub_of


def worker(
    context: typer.Context,
    *,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Inserts at the same time.")] = 2,
) -> None:
    """Store batches in ClickHouse, with Celery's worker and its options. A watchdog restarts it if it ends or hangs.

    Example: outhaul worker -c 4 --loglevel WARNING
    """
    settings = load()
    logs.configure(settings.log_format, level=settings.log_level, scrub=scrub_of(settings))
    log_context.begin(source=settings.source)
    sentry.configure(settings, "watchdog")
    with sentry.reporting_exit():
        _check(settings)
    pruning = ["--include", "outhaul.cdc_reader.operate.pruning.prune_task"] if settings.prune_older_than else []
    code = supervise(settings, ["-c", str(concurrency), *pruning, *context.args], SystemRandom().random)
    raise typer.Exit(code)


def _check(settings: Settings) -> None:
    with Payloads.of(settings) as payloads:
        check_redis(settings, payloads)
    with ClickHouse.of(settings, timeout_s=10) as clickhouse:
        check_clickhouse(settings, clickhouse)

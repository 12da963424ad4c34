"""`outhaul worker`: Celery's worker under a watchdog; options that are not ours are Celery's own."""

from __future__ import annotations

from random import SystemRandom
from typing import Annotated

import typer

from cdc_reader.preflight import check_clickhouse, check_redis
from sink import logs
from sink.clickhouse import ClickHouse
from sink.payloads import Payloads
from sink.settings import load
from sink.watchdog import supervise


def worker(
    context: typer.Context,
    *,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Inserts at once.")] = 2,
) -> None:
    """Store batches in ClickHouse: Celery's worker with its options, started again when it ends or goes deaf.

    Example: outhaul worker -c 4 --loglevel WARNING
    """
    settings = load()
    payloads = Payloads(settings.redis_url.get_secret_value())
    check_redis(settings, payloads)
    payloads.close()
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=10)
    check_clickhouse(settings, clickhouse)
    clickhouse.close()
    logs.configure(settings.log_format)
    pruning = ["--include", "cdc_reader.pruning.task"] if settings.prune_older_than else []
    code = supervise(settings, ["-c", str(concurrency), *pruning, *context.args], SystemRandom().random)
    raise typer.Exit(code)

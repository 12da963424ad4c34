"""`outhaul worker`: Celery's worker with the right app and queue; anything else is Celery's own option."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cdc_reader.preflight import check_clickhouse, check_redis
from sink.clickhouse import ClickHouse
from sink.payloads import Payloads
from sink.settings import load


def worker(
    context: typer.Context,
    *,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Inserts at once.")] = 2,
) -> None:
    """Store batches in ClickHouse; the same as `celery -A sink.app worker`, and takes its options.

    Example: outhaul worker -c 4 --loglevel WARNING
    """
    settings = load()
    payloads = Payloads(settings.redis_url.get_secret_value())
    check_redis(settings, payloads)
    payloads.close()
    clickhouse = ClickHouse(settings.clickhouse_url.get_secret_value(), timeout_s=10)
    check_clickhouse(settings, clickhouse)
    clickhouse.close()
    command = [sys.executable, "-m", "celery", "-A", "sink.app", "worker", "-c", str(concurrency), *context.args]
    os.execv(sys.executable, command)  # noqa: S606 - Celery wants to be the process that the supervisor signals

"""Unprocessed rows of an outbox -> ClickHouse, and marked as processed: one batch a task, the next one sent at once.

Edge: the worker of the polling baseline; `celery -A tests.benchmarks.polling_app worker` starts here. The design is the
one that outhaul replaces: no beat in the way, connections that stay open. It comes in two forms. As it is mostly
written, with both drivers' defaults and the columns that such tables have: the context is parsed into objects and
printed again, the table is described before each insert, no index knows which rows are left. And *tuned*, with all that
can be left out left out: a partial index, binary results, the context as text, types told beforehand, no compression on
a loopback link. A crash between the insert and the commit stores a batch twice; that is the design, too.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import clickhouse_connect
import psycopg
import redis
from celery import Celery, shared_task
from celery.signals import task_failure

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_DONE = "polling.done"
OPEN = "polling.open"
POLL = "polling.poll"

_TYPES = {
    "id": "Int64",
    "event_type": "LowCardinality(String)",
    "event_date_time": "DateTime64(6, 'UTC')",
    "environment": "LowCardinality(String)",
    "event_context": "String",
    "metadata_version": "Nullable(Int64)",
}

_UNPROCESSED = """
    SELECT id, event_type, event_date_time, environment, {context}, metadata_version
    FROM polled_outbox WHERE NOT processed ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"""
_CONTEXT_AT = list(_TYPES).index("event_context")
_MARK = "UPDATE polled_outbox SET processed = true WHERE id = ANY(%s::bigint[])"


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker process keeps from task to task."""

    conn: psycopg.Connection[tuple[Any, ...]]
    client: Client
    rows_a_batch: int
    is_tuned: bool

    def take(self) -> list[tuple[Any, ...]]:
        """Lock and return the next rows, as ClickHouse's driver takes them."""
        if self.is_tuned:
            query = _UNPROCESSED.format(context="event_context::text")
            return self.conn.execute(query.encode(), [self.rows_a_batch], binary=True).fetchall()
        query = _UNPROCESSED.format(context="event_context")
        found = self.conn.execute(query.encode(), [self.rows_a_batch]).fetchall()
        return [(*row[:_CONTEXT_AT], json.dumps(row[_CONTEXT_AT]), *row[_CONTEXT_AT + 1 :]) for row in found]

    def store(self, rows: list[tuple[Any, ...]]) -> None:
        """Insert rows into ClickHouse."""
        types = list(_TYPES.values()) if self.is_tuned else None
        self.client.insert("polled_event_log", rows, column_names=list(_TYPES), column_type_names=types)


def make_app(broker_url: str) -> Celery:
    """Build the app; the benchmark uses it to send the first task, the worker to run it and send the others."""
    app = Celery("polling")
    app.conf.update(
        broker_url=broker_url,
        result_backend=broker_url,
        task_default_queue="polling",
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
    )
    return app


def is_done(broker_url: str) -> bool:
    """Tell whether a task has found nothing to do since the last time that this was so."""
    with redis.Redis.from_url(broker_url) as client:
        return bool(client.delete(_DONE))


@shared_task(name=OPEN)  # type: ignore[untyped-decorator] # celery has no types
def _open() -> bool:
    """Open the connections, so that no batch has to."""
    _work()
    return True


@shared_task(name=POLL, ignore_result=True)  # type: ignore[untyped-decorator] # celery has no types
def _poll() -> None:
    """Bring one batch to ClickHouse, and go on if there was any."""
    work = _work()
    with work.conn.transaction():
        rows = work.take()
        if rows:
            work.store(rows)
            work.conn.execute(_MARK, [[row[0] for row in rows]])
    if rows:
        _poll.apply_async()
    else:
        with redis.Redis.from_url(os.environ["BENCH_BROKER_URL"]) as client:
            client.set(_DONE, 1)


@cache
def _work() -> Work:
    is_tuned = bool(os.environ["BENCH_TUNED"])
    return Work(
        conn=psycopg.connect(os.environ["BENCH_POSTGRES_DSN"], autocommit=True),
        client=clickhouse_connect.get_client(dsn=os.environ["BENCH_CLICKHOUSE_URL"], compress=not is_tuned),
        rows_a_batch=int(os.environ["BENCH_ROWS_A_BATCH"]),
        is_tuned=is_tuned,
    )


@task_failure.connect  # type: ignore[untyped-decorator] # celery has no types
def _end_worker(**_: object) -> None:
    # A task that fails sends no other; nobody should wait for one.
    os.kill(os.getppid(), signal.SIGTERM)


def __getattr__(name: str) -> object:
    # Celery's command line looks for `app`; the benchmark imports this module without an environment.
    if name == "app":
        globals()["app"] = make_app(os.environ["BENCH_BROKER_URL"])
        return globals()["app"]
    raise AttributeError(name)

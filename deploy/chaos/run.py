"""Time and seed -> a pipeline under load and faults for this time, then a verdict.

Edge: starts the stack, the pipeline and the writers, and stops them. The pipeline connects to its servers through
proxies. The writers and the watch connect directly, so a fault of a link does not affect them.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from outhaul.cdc_reader.operate.setup import apply_clickhouse, apply_postgres
from outhaul.deploy.chaos.apply_fault import Victims, inflict
from outhaul.deploy.chaos.fault_plan import faults
from outhaul.deploy.chaos.slot_watch import Watch
from outhaul.deploy.chaos.views import ViewCount, count_views, make_views
from outhaul.deploy.chaos.writers import Writers
from outhaul.deploy.demo.count_events import Counts, count
from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.deploy.local.fault_proxy import Proxy
from outhaul.deploy.local.stack import Stack
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import FatalError, PipelineError
from outhaul.sink.quoting import clickhouse_identifier
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import reader_key
from outhaul.sink.settings import Settings, load_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_VARIABLES = {"postgres": "OUTHAUL_POSTGRES_DSN", "redis": "OUTHAUL_REDIS_URL", "clickhouse": "OUTHAUL_CLICKHOUSE_URL"}
# Shorter than the defaults, so that each timeout can expire within a run. Their order is that of the defaults.
_SETTINGS = {
    "OUTHAUL_INSERT_TIMEOUT_S": "15",
    "OUTHAUL_TASK_TIME_LIMIT_S": "25",
    "OUTHAUL_VISIBILITY_TIMEOUT_S": "40",
    "OUTHAUL_RETRY_MAX_S": "5",
    "OUTHAUL_REDISPATCH_S": "20",
    "OUTHAUL_RECEIVE_TIMEOUT_S": "10",
    "OUTHAUL_LOG_FORMAT": "json",
}
_WRITERS = 3
_QUIESCE_S = 240.0
_POLL_S = 0.5
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a run; `longest_stall_s` is the longest time in which events waited but none was stored."""

    faults: int
    committed: int
    stored: int
    missing: int
    duplicated: int
    slot_overruns: int
    longest_stall_s: float
    longest_stall_during: str
    samples: int
    seconds: float
    views: tuple[ViewCount, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether the table and each view have every committed event once, and the slot passed none of the others."""
        is_whole = not any(view.missing or view.twice for view in self.views)
        return (
            is_whole and not (self.missing or self.duplicated or self.slot_overruns) and self.stored == self.committed
        )

    def to_json(self) -> dict[str, Any]:
        """Return the verdict in JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run; `rows_per_s` is the rate of each writer."""

    for_s: float
    seed: int
    rows_per_s: float


def run(options: Options, data_dir: Path, report: Callable[[str], None]) -> Verdict:
    """Run load and faults, and count; `report` is called with a line for each fault.

    Raises:
        FatalError: the slot did not reach the last commit after the last fault.
    """
    started = time.monotonic()
    stack = Stack(data_dir)
    stack.up()
    proxies: dict[str, Proxy] = {}
    pipeline: Pipeline | None = None
    try:
        proxies |= {name: Proxy(port) for name, status in stack.status().items() if (port := status.port)}
        env = _SETTINGS | {_VARIABLES[name]: _via_proxy(url, proxies) for name, url in _urls(stack).items()}
        settings = load_from(_SETTINGS | stack.env())
        with ClickHouse.of(settings, timeout_s=_TIMEOUT_S) as clickhouse:
            _prepare(settings, clickhouse)
            pipeline = Pipeline(env, data_dir)
            pipeline.start("worker", "reader", "reader-2")
            victims = Victims(stack, pipeline, proxies, settings.slot, time.sleep)
            verdict = _inflict_all(options, settings, clickhouse, victims, report)
    finally:
        if pipeline is not None:
            pipeline.kill()
        for proxy in proxies.values():
            proxy.close()
        stack.down()
    seconds = round(time.monotonic() - started, 1)
    return replace(verdict, seconds=seconds)


def _urls(stack: Stack) -> dict[str, str]:
    env = stack.env()
    return {name: env[variable] for name, variable in _VARIABLES.items()}


def _via_proxy(url: str, proxies: dict[str, Proxy]) -> str:
    parts = urlsplit(url)
    (proxy,) = (proxy for proxy in proxies.values() if proxy.target == parts.port)
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")))


def _prepare(settings: Settings, clickhouse: ClickHouse) -> None:
    apply_clickhouse(clickhouse, settings, lambda _: None)
    make_views(clickhouse)
    apply_postgres(settings, lambda _: None)
    clickhouse.command(f"SYSTEM STOP MERGES {clickhouse_identifier(settings.clickhouse_table)}")
    with psycopg.connect(settings.postgres_dsn.get_secret_value(), autocommit=True) as conn:
        # A frozen reader, or one whose link is held, keeps the slot active until this timeout ends its session.
        conn.execute("ALTER SYSTEM SET wal_sender_timeout = '8s'")
        conn.execute("SELECT pg_reload_conf()")


def _inflict_all(
    options: Options, settings: Settings, clickhouse: ClickHouse, victims: Victims, report: Callable[[str], None]
) -> Verdict:
    dsn = settings.postgres_dsn.get_secret_value()
    # The watch's thread reads the name of the current fault.
    current = ["start"]
    watch = Watch(dsn, settings, lambda: current[0])
    writers = Writers(dsn, _WRITERS, options.seed, options.rows_per_s)
    _wait_streaming(settings, victims)
    watch.start()
    writers.start()
    begun, done = time.monotonic(), 0
    for fault in faults(options.seed):
        if time.monotonic() - begun >= options.for_s:
            break
        current[0] = str(fault)
        for name in victims.pipeline.supervise():
            report(
                f"{time.monotonic() - begun:7.1f} s  {name} could not reach a server at its start; starting it again"
            )
        report(f"{time.monotonic() - begun:7.1f} s  fault {fault.number:4}  {fault}  for {fault.lasts_s:.1f} s")
        inflict(fault, victims)
        done += 1
        time.sleep(fault.pause_s)
    current[0] = "quiescence"
    writers.stop()
    report(f"{time.monotonic() - begun:7.1f} s  no more faults; waiting until the slot reaches the last commit")
    counted = _count_when_stored(dsn, settings, clickhouse, victims)
    watch.stop()
    return Verdict(
        faults=done,
        committed=counted.committed,
        stored=counted.stored,
        missing=counted.missing,
        duplicated=counted.duplicated + counted.extra,
        slot_overruns=watch.overruns(clickhouse),
        longest_stall_s=watch.stall.seconds,
        longest_stall_during=watch.stall.during,
        samples=watch.samples,
        seconds=0.0,
        views=count_views(clickhouse),
    )


def _wait_streaming(settings: Settings, victims: Victims) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    with Payloads.of(settings) as payloads:
        while not (line := payloads.text(reader_key(settings.source))) or '"streaming"' not in line:
            victims.pipeline.check()
            if time.monotonic() > deadline:
                raise FatalError(f"no reader streams after {_TIMEOUT_S} s", todo="Read the logs in the data directory")
            time.sleep(_POLL_S)


def _count_when_stored(dsn: str, settings: Settings, clickhouse: ClickHouse, victims: Victims) -> Counts:
    """Wait until the slot has reached the last commit, then count."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        end = row[0] if row else "0/0"
        deadline = time.monotonic() + _QUIESCE_S
        while True:
            victims.pipeline.supervise()
            query = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
            row = conn.execute(query, [end, settings.slot]).fetchone()
            if row and row[0]:
                return count(dsn, clickhouse)
            if time.monotonic() > deadline:
                raise FatalError(
                    f"the slot did not reach {end} within {_QUIESCE_S:.0f} s of quiet: {_counts(dsn, clickhouse)}",
                    todo="Read the logs of reader and worker in the data directory",
                )
            time.sleep(_POLL_S)


def _counts(dsn: str, clickhouse: ClickHouse) -> str:
    try:
        return str(count(dsn, clickhouse))
    except PipelineError as error:
        return str(error)

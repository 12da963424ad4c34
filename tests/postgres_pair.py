"""A PostgreSQL primary and its streaming standbys, all real, from the binaries of the embedded stack.

Edge: pg_basebackup and processes of its own. The primary is a stack's; its standby lies beside it, under the same
account, with its slots kept in step (`sync_replication_slots`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from outhaul.deploy.local.postgres import Postgres, client_programs
from outhaul.deploy.local.stack import Stack
from outhaul.deploy.local.unprivileged_user import ordinary_account
from tests import roles
from tests.acceptance.metrics_pages import free_port
from tests.conftest import until

DATABASE, USER = "outhaul", "outhaul"
_SLOT = "standby"
_LIMIT_S = 60
# What `Stack` starts a server with comes before these, which win over the primary's copied files.
_STANDBY = """
hot_standby_feedback = on
primary_slot_name = '{slot}'
primary_conninfo = 'host=127.0.0.1 port={port} user={user} dbname={database}'
cluster_name = 'standby'
"""
_SYNCHRONISES_SINCE = 170000
_SYNCHRONISES = """
sync_replication_slots = on
synchronized_standby_slots = ''
"""


class Pair:
    """Two servers, or more: number 0 is the primary until `promote` makes another one that."""

    def __init__(self, folder: Path, *, waits_for_standby: bool = True) -> None:
        """Start nothing yet.

        Args:
            folder: for data and logs.
            waits_for_standby: what the standby has not received is not streamed to readers either.
        """
        self.stack = Stack(folder / "primary")
        self.ports: list[int] = []
        self._folder = folder
        self._waits_for_standby = waits_for_standby
        self._copies: dict[int, Path] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the primary, copy it, and let the copy follow."""
        self.stack.up(["postgres"])
        dsn = psycopg.conninfo.conninfo_to_dict(self.stack.env()["OUTHAUL_POSTGRES_DSN"])
        self.ports = [int(str(dsn["port"]))]
        with self.primary() as conn:
            roles.create(conn)
            self._synchronises = conn.info.server_version >= _SYNCHRONISES_SINCE
            if self._waits_for_standby and self._synchronises:
                conn.execute(f"ALTER SYSTEM SET synchronized_standby_slots = '{_SLOT}'")
                conn.execute("SELECT pg_reload_conf()")
            self._data = Path(str((conn.execute("SHOW data_directory").fetchone() or [""])[0]))
        self._account = self._data.stat()
        self._programs = Path(Path(f"/proc/{self.stack.pid('postgres')}/cmdline").read_text().split("\0")[0]).parent
        self.add_standby(_SLOT)

    def add_standby(self, slot: str) -> None:
        """Copy the primary, and let the copy follow by a physical slot of that name."""
        number = len(self.ports)
        self.ports.append(free_port())
        with self.primary() as conn:
            conn.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
        copy = self._copies[number] = self._data.with_name(f"{self._data.name}-standby{number}")
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(mode=0o700)
        os.chown(copy, self._account.st_uid, self._account.st_gid)
        source = ["-h", "127.0.0.1", "-p", str(self.ports[0]), "-U", USER]
        self._run("pg_basebackup", *source, "-D", str(copy), "-X", "stream", "-S", slot, "-c", "fast")
        settings = _STANDBY.format(slot=slot, port=self.ports[0], user=USER, database=DATABASE)
        settings += _SYNCHRONISES if self._synchronises else ""
        with (copy / "postgresql.auto.conf").open("a") as file:
            file.write(settings)
        (copy / "standby.signal").touch()
        self.start_standby(number)

    @property
    def dsn(self) -> str:
        """All servers, for a client that wants the primary, whichever it is."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"postgresql://{USER}@{hosts}/{DATABASE}?target_session_attrs=read-write"

    def primary(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn_of(0), autocommit=True)

    def standby(self, number: int = 1) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn_of(number), autocommit=True)

    def dsn_of(self, number: int) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.ports[number]}/{DATABASE}"

    def wait_for_slot(self, name: str) -> None:
        """Wait until the standby has the slot and would keep it when it is promoted."""

        def is_ready() -> bool:
            with self.standby() as conn:
                ready = "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = %s"
                return conn.execute(ready, [name]).fetchone() == (True,)

        until(is_ready, within_s=_LIMIT_S, what=f"slot {name} is synchronised")

    def wait_for_rows(self, count: int) -> None:
        """Wait until the standby has `count` events, and the slot's positions before them."""
        with self.standby() as conn:
            until(lambda: conn.execute("SELECT count(*) FROM outbox").fetchone() == (count,), what="the standby has it")

    def disconnect(self) -> None:
        """Let the standby receive nothing more."""
        with self.standby() as conn:
            conn.execute("ALTER SYSTEM SET primary_conninfo = ''")
            conn.execute("SELECT pg_reload_conf()")
        with self.primary() as conn:
            idle = "SELECT count(*) FROM pg_stat_replication WHERE application_name <> 'outhaul'"
            until(lambda: conn.execute(idle).fetchone() == (0,), what="the standby is cut off")

    def kill_primary(self) -> None:
        self.stack.kill("postgres")

    def crash_standby(self) -> None:
        """End the standby without a checkpoint."""
        self._processes[1].send_signal(signal.SIGQUIT)
        self._processes[1].wait(_LIMIT_S)

    def start_standby(self, number: int = 1) -> None:
        """Start it, so that it follows, or follows again."""
        self._processes[number] = self._start(number)

    def set_standby(self, name: str, value: str) -> None:
        """Change a setting of the standby that takes no restart."""
        with self.standby() as conn:
            conn.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            conn.execute("SELECT pg_reload_conf()")

    def follow(self, number: int) -> None:
        """Let the first standby follow another one, which is about to be promoted and has a slot for it then."""
        with self.standby(number) as conn:
            conn.execute("SELECT pg_create_physical_replication_slot(%s, true)", [_SLOT])
        source = f"host=127.0.0.1 port={self.ports[number]} user={USER} dbname={DATABASE}"
        self.set_standby("primary_conninfo", source)

    def promote(self, number: int = 1) -> None:
        with self.standby(number) as conn:
            conn.execute("SELECT pg_promote()")
            until(lambda: conn.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), what="it is promoted")

    def close(self) -> None:
        """End all servers."""
        for process in self._processes.values():
            process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        for copy in self._copies.values():
            shutil.rmtree(copy, ignore_errors=True)
        self.stack.down(["postgres"])

    def _as_its_owner(self) -> dict[str, Any]:
        if os.getuid() == self._account.st_uid:
            return {}
        return {"user": self._account.st_uid, "group": self._account.st_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(client_programs(ordinary_account()) / program), *arguments],
            check=True,
            cwd="/",
            timeout=_LIMIT_S,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            **self._as_its_owner(),
        )

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        path = self._folder / ("standby.log" if number == 1 else f"standby{number}.log")
        with path.open("ab") as log:
            process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._copies[number]), "-p", str(self.ports[number])],
                cwd="/",
                env=Postgres.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_its_owner(),
            )

        def answers() -> bool:
            assert process.poll() is None, path.read_text()[-2000:]
            with suppress(psycopg.OperationalError):
                self.standby(number).close()
                return True
            return False

        until(answers, within_s=_LIMIT_S, what="the standby answers")
        return process

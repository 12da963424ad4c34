"""A server of Debian's PostgreSQL 15, which has TLS; the embedded one has none."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from outhaul.deploy.local.unprivileged_user import ordinary_account
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROGRAMS = Path("/usr/lib/postgresql/15/bin")


@contextlib.contextmanager
def postgres_15(hba: str = "", files: Mapping[str, Path] | None = None, **settings: str) -> Iterator[Path]:
    """Run a server during the block; yield the folder of its socket, where user `outhaul` gets in without a password.

    Args:
        hba: what pg_hba.conf says beside that.
        files: names in the data directory, and what is copied there, readable by the server alone.
        settings: more of postgresql.conf.
    """
    if not PROGRAMS.exists():
        pytest.skip("no PostgreSQL 15 here")
    account = ordinary_account()
    # Not below pytest's folder, which is root's own.
    folder = Path(tempfile.mkdtemp(prefix="outhaul-postgres15-"))

    def hand_over(path: Path) -> None:
        if account.uid is not None and account.gid is not None:
            os.chown(path, account.uid, account.gid)

    def run(program: str, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(PROGRAMS / program), "-D", f"{folder}/data", *args],
            user=account.uid,
            group=account.gid,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    hand_over(folder)
    assert run("initdb", "-U", "outhaul", "--auth=trust", "-N").wait(60) == 0
    for name, source in (files or {}).items():
        target = folder / "data" / name
        shutil.copy(source, target)
        hand_over(target)
        target.chmod(0o600)
    (folder / "data" / "pg_hba.conf").write_text(f"local all all trust\n{hba}")
    chosen = {"wal_level": "logical", "unix_socket_directories": str(folder), "listen_addresses": ""} | settings
    server = run("postgres", *(word for name, value in chosen.items() for word in ("-c", f"{name}={value}")))
    dsn = f"host={folder} port={chosen.get('port', 5432)} user=outhaul dbname=postgres"

    def answers() -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(dsn):
            return True
        return False

    try:
        until(answers, what="PostgreSQL 15 answers")
        yield folder
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder)

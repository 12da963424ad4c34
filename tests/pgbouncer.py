"""pgbouncer, a pooler, in front of the tests' Postgres.

Edge: a process. Debian has it: `apt-get install pgbouncer`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outhaul.deploy.local.ports import Ports
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_pgbouncer = pytest.mark.skipif(
    shutil.which("pgbouncer") is None, reason="pgbouncer is not installed: apt-get install pgbouncer"
)


@contextmanager
def pgbouncer(dsn: str, folder: Path, **settings: str) -> Iterator[str]:
    """Run a pgbouncer before the server of this DSN, with these settings; yield the DSN that leads through it."""
    server = conninfo_to_dict(dsn)
    port, _ = Ports(folder).choose("pgbouncer", None)
    users = dict.fromkeys(("postgres", "tested_reader", "tested_app"), "") | {
        str(server["user"]): str(server.get("password") or "")
    }
    (folder / "users").write_text("".join(f'"{name}" "{password}"\n' for name, password in users.items()))
    ours = {"listen_addr": "127.0.0.1", "listen_port": str(port), "unix_socket_dir": "", "auth_type": "trust"}
    lines = (ours | {"auth_file": f"{folder}/users", "max_client_conn": "100"} | settings).items()
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server['port']}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in lines)
    )
    command = ["pgbouncer", str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:
        # It refuses to run as root; what it reads is no secret here.
        command.insert(1, "--user=nobody")
        for each in (folder, *folder.parents[:2]):
            each.chmod(0o755)
    with (folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    through = make_conninfo(dsn, host="127.0.0.1", port=port)
    try:
        until(lambda: _answers(through), what="pgbouncer answers")
        yield through
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True

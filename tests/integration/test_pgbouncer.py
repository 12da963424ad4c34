"""Producers behind pgbouncer in transaction mode: each transaction may meet another server session."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outhaul import Event, emit, emit_many
from outhaul.deploy.local.ports import Ports
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import World

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed"),
]


@pytest.fixture
def bounced(world: World, tmp_path: Path) -> Iterator[str]:
    """Run a pgbouncer with two server sessions; return its DSN."""
    server = conninfo_to_dict(world.dsn)
    port, _ = Ports(tmp_path).choose("pgbouncer", None)
    (tmp_path / "users").write_text(f'"{server["user"]}" "{server.get("password", "")}"\n')
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server['port']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {tmp_path}/users\npool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\n"
    )
    # It refuses to run as root; what it reads is no secret here.
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    process = subprocess.Popen(["pgbouncer", "--user=nobody", str(tmp_path / "pgbouncer.ini")], stderr=subprocess.PIPE)
    dsn = make_conninfo(world.dsn, host="127.0.0.1", port=port)
    try:
        until(lambda: answers(dsn), what="pgbouncer answers")
        yield dsn
    finally:
        process.terminate()
        process.communicate(timeout=10)


def answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


def test_events_and_keys_of_many_clients_are_written_once(world: World, bounced: str) -> None:
    def write(number: int) -> int:
        # Statements prepared in one session are unknown in the next: psycopg's own advice for such poolers.
        with psycopg.connect(bounced, prepare_threshold=None) as conn:
            new = 0
            for turn in range(20):
                emit(conn, Event("plain", {"of": number}, environment="test"))
                events = [Event("keyed", {}, environment="test", key=f"{turn}-{key}") for key in range(5)]
                new += sum(emit_many(conn, events))
                conn.commit()
                emit(conn, Event("never", {}, environment="test"))
                conn.rollback()
        return new

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 100
    assert world.conn.execute("SELECT event_type, count(*) FROM outbox GROUP BY 1 ORDER BY 1").fetchall() == [
        ("keyed", 100),
        ("plain", 160),
    ]

"""nginx and haproxy in front of a server of a test, as Debian's packages have them; and other programs of Debian.

Edge: looks at the path, starts processes. Where a program is missing, a laptop skips the test, and CI, which installs
them, fails it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.metrics_pages import free_port
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HOST = "127.0.0.1"
_HOW = "apt-get install --no-install-recommends faketime haproxy nginx-light redis-server"
_TEMPORARY = ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")


def program(name: str) -> str:
    """Return the path of a program; skip the test if it is not installed."""
    if path := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"):
        return path
    reason = f"{name} is not installed: {_HOW}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def nginx(folder: Path, upstream: int, *directives: str) -> Iterator[int]:
    """Run an nginx that passes requests on, with nginx' own defaults; yield its port.

    Args:
        folder: for its configuration and its files.
        upstream: port of the server behind it.
        directives: of the server block.
    """
    port, home = free_port(), folder / f"nginx-{upstream}"
    home.mkdir(exist_ok=True)
    temporary = "".join(f"{name}_temp_path {home}/{name};" for name in _TEMPORARY)
    (home / "conf").write_text(
        f"daemon off; master_process off; pid {home}/pid; error_log {home}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary} server {{ listen {HOST}:{port}; {' '.join(directives)}\n"
        f"location / {{ proxy_pass http://{HOST}:{upstream}; }} }} }}\n"
    )
    with _running([program("nginx"), "-c", str(home / "conf"), "-p", str(home)], port):
        yield port


@contextmanager
def haproxy(folder: Path, upstream: Sequence[int], mode: str, retries: int) -> Iterator[int]:
    """Run a haproxy that goes round robin over these ports, and checks none of them; yield its port."""
    port, conf = free_port(), folder / "haproxy.cfg"
    servers = "".join(f"  server s{number} {HOST}:{one}\n" for number, one in enumerate(upstream))
    conf.write_text(
        f"defaults\n  mode {mode}\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n"
        f"  retries {retries}\nlisten front\n  bind {HOST}:{port}\n  balance roundrobin\n{servers}"
    )
    with _running([program("haproxy"), "-db", "-f", str(conf)], port):
        yield port


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        until(lambda: _answers(port), what=f"{command[0]} answers")
        yield
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), timeout=5):
        return True
    return False

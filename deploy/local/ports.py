"""Requested ports and ports of earlier starts -> a port for each service, the same at every start.

Edge: tries to listen, reads and writes `ports.json`.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from typing import TYPE_CHECKING

from outhaul.sink.errors import FatalError

if TYPE_CHECKING:
    from pathlib import Path

# Below the range of ports for outgoing connections; otherwise one of these could take a stopped service's port.
_FIRST, _LAST = 20_000, 32_000
_TRIES = 200

# A service that has just been killed may still hold its port.
_PATIENCE_S = 1.0
_LOOK_S = 0.02


class Ports:
    """The ports of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "ports.json"
        # Services start in parallel threads.
        self._lock = threading.Lock()

    def remembered(self, name: str) -> int | None:
        """Return the port that this service had last, or None."""
        return self._read().get(name)

    def choose(self, name: str, requested: int | None) -> tuple[int, str]:
        """Return a free port, and a note for the user if it differs from the last one; record the port.

        Raises:
            FatalError: the requested port is taken, or no free port was found.
        """
        with self._lock:
            return self._choose(name, requested)

    def _choose(self, name: str, requested: int | None) -> tuple[int, str]:
        last = self.remembered(name)
        if requested is not None:
            if not free(requested):
                raise FatalError(
                    f"port {requested} for {name} is taken by another program",
                    todo=f"Choose another --{name}-port, or omit the option",
                )
            self._remember(name, requested)
            return requested, ""
        if last is not None and _wait_free(last):
            return last, ""
        for _ in range(_TRIES):
            port = random.randrange(_FIRST, _LAST)  # noqa: S311 - not a secret
            if port not in self._read().values() and free(port):
                self._remember(name, port)
                return port, "" if last is None else f"{name}: port {last} is taken by another program, using {port}"
        raise FatalError(f"found no free port for {name}", todo=f"Choose one with --{name}-port")

    def _read(self) -> dict[str, int]:
        try:
            ports: dict[str, int] = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return ports

    def _remember(self, name: str, port: int) -> None:
        partial = self._file.with_suffix(".new")
        partial.write_text(json.dumps({**self._read(), name: port}, indent=1), encoding="utf-8")
        partial.replace(self._file)


def _wait_free(port: int) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def free(port: int) -> bool:
    """Return whether this process can listen on the port of 127.0.0.1."""
    with socket.socket() as listener:
        # The servers set this option, too. Connections of the last run that are still closing do not block the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

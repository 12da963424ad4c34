"""Wishes and memory -> a port for each service, the same one at every start.

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

# Below the range out of which outgoing connections get theirs, or one of them could sit on a stopped service's port.
_FIRST, _LAST = 20_000, 32_000
_TRIES = 200

# A service that was killed from outside just now may still hold its port.
_PATIENCE_S = 1.0
_LOOK_S = 0.02


class Ports:
    """The ports of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "ports.json"
        # Services start side by side.
        self._turn = threading.Lock()

    def remembered(self, name: str) -> int | None:
        """Return the port this service had last."""
        return self._read().get(name)

    def choose(self, name: str, wish: int | None) -> tuple[int, str]:
        """Return a free port, remembered from now on, and a note where it is not the one of last time.

        Raises:
            FatalError: the wished port is taken, or none is free.
        """
        with self._turn:
            return self._choose(name, wish)

    def _choose(self, name: str, wish: int | None) -> tuple[int, str]:
        last = self.remembered(name)
        if wish is not None:
            if not free(wish):
                raise FatalError(
                    f"port {wish} for {name} is taken by another program", todo=f"Choose another --{name}-port, or none"
                )
            self._remember(name, wish)
            return wish, ""
        if last is not None and _soon_free(last):
            return last, ""
        for _ in range(_TRIES):
            port = random.randrange(_FIRST, _LAST)  # noqa: S311 - nothing secret about it
            if port not in self._read().values() and free(port):
                self._remember(name, port)
                return port, "" if last is None else f"{name}: port {last} is taken by another program, using {port}"
        raise FatalError(f"found no free port for {name}", todo=f"Name one with --{name}-port")

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


def _soon_free(port: int) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def free(port: int) -> bool:
    """Tell whether we could listen there."""
    with socket.socket() as listener:
        # As the servers do: connections of the last run that are still closing are no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

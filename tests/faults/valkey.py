"""A Valkey of the grid's own, that may lose everything without hurting anybody else."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from signal import SIGKILL
from typing import TYPE_CHECKING

import redis

from outhaul.deploy.local.ports import free
from outhaul.deploy.local.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _ports() -> Iterator[int]:
    # At random, since other runs look for one at the same moment.
    while True:
        yield random.randrange(32_100, 32_700)


class OwnValkey:
    """Starts, stops, crashes and forgets; the port stays the same."""

    def __init__(self, folder: Path) -> None:
        """Choose a port; nothing is started yet."""
        self._folder = folder
        self._service = Valkey(folder)
        self.port = next(port for port in _ports() if free(port))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start with what the append-only file holds, and wait until it answers."""
        launch = self._service.prepare(self.port)
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(launch.argv, cwd=launch.cwd, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._service.answers(self.port):
            assert time.monotonic() < deadline, "Valkey does not answer"
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int = SIGKILL) -> None:
        """End it, by a crash or as one should."""
        self.signal(number)
        assert self._process is not None
        self._process.wait(20)

    def forget(self) -> None:
        """Remove what it has written; it must not be running."""
        shutil.rmtree(self._folder / "redis")

    def client(self) -> redis.Redis:
        """Return a client that goes there straight."""
        return redis.Redis(port=self.port, socket_timeout=10)

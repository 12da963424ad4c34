"""Data directory -> Flower on the stack's Valkey, if it is installed. No other service needs it.

Edge: queries Flower over HTTP.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import outhaul
from outhaul.deploy.local.processes import Launch

if TYPE_CHECKING:
    from collections.abc import Mapping

_ANSWER_S = 2
_COMMAND = ("-m", "outhaul", "flower")


class Flower:
    """The Flower of one data directory. It stores nothing."""

    name: ClassVar[str] = "flower"
    # It has no work to finish, so one second is enough.
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0))
    start_timeout_s: ClassVar[float] = 60.0

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        """Store the arguments; nothing is started.

        Args:
            data_dir: the data directory of the stack.
            settings: the URLs of its servers, by the names of outhaul's settings.
        """
        self._home = data_dir / self.name
        self._settings = settings
        self.log = data_dir / "log" / "flower.log"

    @staticmethod
    def is_installed() -> bool:
        """Return whether Flower is installed."""
        return importlib.util.find_spec("flower") is not None

    def prepare(self, port: int) -> Launch:
        """Return how to start it."""
        self._home.mkdir(exist_ok=True)
        # OUTHAUL_* variables of this shell may belong to another pipeline.
        shell = {name: value for name, value in os.environ.items() if not name.startswith("OUTHAUL_")}
        root = str(Path(outhaul.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, shell.get("PYTHONPATH", ""))))
        argv = (sys.executable, "-P", *_COMMAND, "--port", str(port), self._mark)
        return Launch(argv, self._home, {**shell, **self._settings, "PYTHONPATH": path})

    def is_server(self, argv: tuple[str, ...]) -> bool:
        """Return whether this is the command line of this Flower."""
        return argv[2:5] == _COMMAND and argv[-1] == self._mark

    def is_leftover(self, argv: tuple[str, ...]) -> bool:  # noqa: ARG002 - part of the Service protocol
        """Return False: the stack waits for no child process of Flower."""
        return False

    def answers(self, port: int) -> bool:
        """Return whether it serves pages."""
        try:
            with urllib.request.urlopen(f"{self.url(port)}/healthcheck", timeout=_ANSWER_S):  # noqa: S310 - fixed URL
                return True
        except (OSError, urllib.error.URLError):
            return False

    def version(self, port: int) -> str:  # noqa: ARG002
        """Return the version of the installed package."""
        return version("flower")

    def url(self, port: int) -> str:
        """Return the address of its first page."""
        return f"http://127.0.0.1:{port}"

    @property
    def _mark(self) -> str:
        # Flower does not use this file, since it stores nothing. The option marks the process as this directory's.
        return f"--db={self._home / 'state'}"

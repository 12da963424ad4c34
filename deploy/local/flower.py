"""Data directory -> Flower on the stack's Valkey, where it is installed: something to look at, on which nothing waits.

Edge: asks Flower over HTTP.
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
    """The Flower of one data directory; it keeps nothing."""

    name: ClassVar[str] = "flower"
    # It has nothing to bring to an end.
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0))
    start_timeout_s: ClassVar[float] = 60.0

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        """Look at nothing yet.

        Args:
            data_dir: of the stack.
            settings: the URLs of its servers, under the names that outhaul reads.
        """
        self._home = data_dir / self.name
        self._settings = settings
        self.log = data_dir / "log" / "flower.log"

    @staticmethod
    def is_installed() -> bool:
        """Tell whether there is any Flower to start."""
        return importlib.util.find_spec("flower") is not None

    def prepare(self, port: int) -> Launch:
        """Say how to start it."""
        self._home.mkdir(exist_ok=True)
        # What this shell has set for another pipeline is not this one's.
        shell = {name: value for name, value in os.environ.items() if not name.startswith("OUTHAUL_")}
        root = str(Path(outhaul.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, shell.get("PYTHONPATH", ""))))
        argv = (sys.executable, "-P", *_COMMAND, "--port", str(port), self._mark)
        return Launch(argv, self._home, {**shell, **self._settings, "PYTHONPATH": path})

    def is_it(self, argv: tuple[str, ...]) -> bool:
        """Tell it by its command line."""
        return argv[2:5] == _COMMAND and argv[-1] == self._mark

    def is_left_over(self, argv: tuple[str, ...]) -> bool:  # noqa: ARG002 - the services have one shape
        """There are none."""
        return False

    def answers(self, port: int) -> bool:
        """Tell whether it shows pages."""
        try:
            with urllib.request.urlopen(f"{self.url(port)}/healthcheck", timeout=_ANSWER_S):  # noqa: S310 - our own
                return True
        except (OSError, urllib.error.URLError):
            return False

    def version(self, port: int) -> str:  # noqa: ARG002
        """It is a package, whose version is known."""
        return version("flower")

    def url(self, port: int) -> str:
        """Return the address of its first page."""
        return f"http://127.0.0.1:{port}"

    @property
    def _mark(self) -> str:
        # Where it would keep its state if it were told to; on its command line, it says whose Flower this is.
        return f"--db={self._home / 'state'}"

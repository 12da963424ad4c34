"""Data directory -> the embedded ClickHouse engine's front as a process, with a login of its own.

Edge: writes the account, asks the front over HTTP. What the front is and is not: `clickhouse_front.py`.
"""

from __future__ import annotations

import base64
import http.client
import importlib.util
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import ClassVar

import outhaul
from outhaul.deploy.local.processes import Launch
from outhaul.sink.errors import FatalError

_USER = "outhaul"
_ANSWER_S = 5
_MODULE = "outhaul.deploy.local.front.server"
DATABASE = "outhaul"


class ClickHouse:
    """The engine over one data directory."""

    name: ClassVar[str] = "clickhouse"
    # The front itself gives running queries 6 s.
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))
    start_timeout_s: ClassVar[float] = 60.0

    def __init__(self, data_dir: Path) -> None:
        self._home = data_dir / self.name
        self.log = data_dir / "log" / "clickhouse.log"

    def prepare(self, port: int) -> Launch:
        """Make the account if there is none, and say how to start the front.

        Raises:
            FatalError: the wheel is missing.
        """
        if importlib.util.find_spec("chdb") is None:
            raise FatalError("the embedded ClickHouse engine is not installed", todo="pip install 'outhaul[local]'")
        self._home.mkdir(exist_ok=True)
        if not self._account.exists():
            partial = self._account.with_suffix(".new")
            partial.touch(mode=0o600)
            partial.write_text(f"{_USER}:{secrets.token_urlsafe(18)}\n", encoding="utf-8")
            partial.rename(self._account)
        root = str(Path(outhaul.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        argv = (sys.executable, "-P", "-m", _MODULE, str(self._home), "--port", str(port))
        return Launch(argv, self._home, {**os.environ, "PYTHONPATH": path})

    def is_it(self, argv: tuple[str, ...]) -> bool:
        """Tell the front by its command line."""
        return argv[2:5] == ("-m", _MODULE, str(self._home))

    def is_left_over(self, argv: tuple[str, ...]) -> bool:  # noqa: ARG002 - the services have one shape
        """There are none."""
        return False

    def answers(self, port: int) -> bool:
        """Tell whether the engine is open."""
        try:
            return self._get(port, "/ping") == "Ok.\n"
        except (OSError, http.client.HTTPException):
            return False

    def version(self, port: int) -> str:
        """Ask the engine."""
        return self._get(port, "/?query=SELECT%20version()").strip()

    def url(self, port: int) -> str:
        """Return OUTHAUL_CLICKHOUSE_URL."""
        return f"http://{self._login()}@127.0.0.1:{port}/{DATABASE}"

    def _login(self) -> str:
        # Made of letters that mean nothing in a URL.
        return self._account.read_text(encoding="utf-8").strip()

    @property
    def _account(self) -> Path:
        return self._home / "account"

    def _get(self, port: int, target: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
        try:
            login = base64.b64encode(self._login().encode()).decode()
            connection.request("GET", target, headers={"Authorization": f"Basic {login}"})
            return connection.getresponse().read().decode()
        finally:
            connection.close()

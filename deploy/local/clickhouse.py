"""Data directory -> a process that serves the embedded ClickHouse engine over HTTP, with a login of its own.

Edge: writes the account file, queries the process over HTTP. `front/server.py` lists how it differs from a server.
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
_MODULE = "outhaul.deploy.local.clickhouse_http.server"
DATABASE = "outhaul"


class ClickHouse:
    """The engine of one data directory."""

    name: ClassVar[str] = "clickhouse"
    # After SIGTERM, the front waits up to 6 s for running queries.
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))
    start_timeout_s: ClassVar[float] = 60.0

    def __init__(self, data_dir: Path) -> None:
        self._home = data_dir / self.name
        self.log = data_dir / "log" / "clickhouse.log"

    def prepare(self, port: int) -> Launch:
        """Create the account if needed, and return how to start the front.

        Raises:
            FatalError: the chdb wheel is not installed.
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

    def is_server(self, argv: tuple[str, ...]) -> bool:
        """Return whether this is the command line of the front."""
        return argv[2:5] == ("-m", _MODULE, str(self._home))

    def is_leftover(self, argv: tuple[str, ...]) -> bool:  # noqa: ARG002 - part of the Service protocol
        """Return False: the stack waits for no child process of the front."""
        return False

    def answers(self, port: int) -> bool:
        """Return whether the engine answers."""
        try:
            return self._get(port, "/ping") == "Ok.\n"
        except (OSError, http.client.HTTPException):
            return False

    def version(self, port: int) -> str:
        """Return the version of the engine."""
        return self._get(port, "/?query=SELECT%20version()").strip()

    def url(self, port: int) -> str:
        """Return the value for OUTHAUL_CLICKHOUSE_URL."""
        return f"http://{self._login()}@127.0.0.1:{port}/{DATABASE}"

    def _login(self) -> str:
        # `token_urlsafe` made it, so no character needs quoting in a URL.
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

"""Statement -> answer of ClickHouse, or an error of ours.

Edge: the one file that talks to ClickHouse (HTTP, clickhouse-connect). The driver's exceptions become ours here, by
ClickHouse's code. A request that got no answer is transient; whether it had an effect is for the token to settle.

Source: https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import urllib3
from clickhouse_connect import common
from clickhouse_connect.driver.exceptions import ClickHouseError

from sink.codes import error_of
from sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clickhouse_connect.driver.client import Client

# Inserts of different tasks share a client of their process; a session would let only one run at a time.
common.set_setting("autogenerate_session_id", False)

# The driver logs what it raises, with its traceback, and without a handler that would land on standard error.
logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())

_CONNECT_TIMEOUT_S = 5


class ClickHouse:
    """A lazily opened client for one database."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Keep the address; nothing is opened yet.

        Args:
            url: `http[s]://user:password@host:port/database`.
            timeout_s: longest wait for an answer, in seconds.

        Raises:
            FatalError: the URL is not of that form.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise FatalError(
                "OUTHAUL_CLICKHOUSE_URL is not of the form http[s]://user:password@host:port/database",
                exit_code=Exit.SETTINGS,
            )
        self._connect = {
            "interface": parts.scheme,
            "host": parts.hostname,
            "port": parts.port or (8443 if parts.scheme == "https" else 8123),
            "username": unquote(parts.username or "default"),
            "password": unquote(parts.password or ""),
            "database": unquote(parts.path.strip("/")) or "default",
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "send_receive_timeout": timeout_s,
            "query_retries": 0,
            "show_clickhouse_errors": "scrub",
            "compress": False,
        }
        self._client: Client | None = None

    @property
    def address(self) -> str:
        """Host, port and database, for messages; no secrets."""
        return f"{self._connect['host']}:{self._connect['port']}/{self._connect['database']}"

    def command(
        self,
        statement: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        data: bytes | None = None,
    ) -> None:
        """Carry out a statement; `data` follows it in the body of the request.

        Raises:
            PipelineError: of the kind that ClickHouse's code says.
        """
        self._call("command", statement, parameters=dict(parameters or {}), settings=dict(settings or {}), data=data)

    def rows(self, query: str, *, parameters: Mapping[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        """Return the rows of a query.

        Raises:
            PipelineError: of the kind that ClickHouse's code says.
        """
        result: Sequence[Sequence[Any]] = self._call("query", query, parameters=dict(parameters or {})).result_rows
        return result

    def arrow(self, query: str, *, parameters: Mapping[str, Any] | None = None) -> Any:
        """Return the answer as a pyarrow Table.

        Raises:
            PipelineError: of the kind that ClickHouse's code says.
        """
        return self._call("query_arrow", query, parameters=dict(parameters or {}))

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._client is None:
                self._client = clickhouse_connect.get_client(**self._connect)  # type: ignore[arg-type]
            return getattr(self._client, method)(*args, **kwargs)
        except ClickHouseError as error:
            code = getattr(error, "code", None)
            text = str(error) if code is not None else f"{self.address} does not answer ({error})"
            raise error_of(code, text) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise error_of(None, f"{self.address} does not answer ({type(error).__name__})") from error

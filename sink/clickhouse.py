"""Statement -> ClickHouse's answer, or a `PipelineError`.

Edge: HTTP, with clickhouse-connect; no other file connects to ClickHouse. This file translates the driver's exceptions
by ClickHouse's error code. A request without an answer raises TransientError. It may have had an effect: an insert is
repeated with the same deduplication token.

Source: https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import clickhouse_connect
import urllib3
from clickhouse_connect import common
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.httputil import get_pool_manager

from outhaul.sink import tls
from outhaul.sink.clickhouse_errors import error_of
from outhaul.sink.errors import Exit, FatalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from urllib.parse import SplitResult

    from clickhouse_connect.driver.client import Client

    from outhaul.sink.settings import Settings

# Tasks of one process share a client. In a session, ClickHouse would run only one of their inserts at a time.
common.set_setting("autogenerate_session_id", False)

# The driver logs each failed request with its traceback. Without a handler, Python prints it in processes that do not
# configure logging.
logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())

_CONNECT_TIMEOUT_S = 5

_VARIABLE = "OUTHAUL_CLICKHOUSE_URL"
_FILES = ("ca_cert", "client_cert", "client_cert_key")
_EXAMPLE = f"{_VARIABLE}=https://...?ca_cert=/path/to/ca.pem"


class ClickHouse:
    """A client for one database, opened at the first call."""

    def __init__(self, url: str, *, timeout_s: float, apart: bool = False) -> None:
        """Keep the address; open no connection yet.

        Args:
            url: `http[s]://user:password@host:port/database`, with `?ca_cert=`, `client_cert=` and `client_cert_key=`.
            timeout_s: how long to wait for an answer, in seconds.
            apart: whether to open connections of its own; other clients of a process share theirs.

        Raises:
            FatalError: the URL is not of that form, or names a file that cannot be read.
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
            **(files := _tls_options(parts)),
        }
        if apart:
            certificates: dict[str, Any] = dict(files)
            self._connect["pool_mgr"] = get_pool_manager(**certificates)
        self._client: Client | None = None

    @classmethod
    def of(cls, settings: Settings, *, timeout_s: float, apart: bool = False) -> Self:
        """Return a client for the server of the settings; nothing is opened yet.

        Raises:
            FatalError: as of the constructor.
        """
        return cls(settings.clickhouse_url.get_secret_value(), timeout_s=timeout_s, apart=apart)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        """Run a statement; `data` is the body of the request.

        Raises:
            PipelineError: ClickHouse refuses or does not answer; its error code determines the kind.
        """
        self._call("command", statement, parameters=dict(parameters or {}), settings=dict(settings or {}), data=data)

    def rows(
        self, query: str, *, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        """Return the rows of a query.

        Raises:
            PipelineError: ClickHouse refuses or does not answer; its error code determines the kind.
        """
        bound = {"parameters": dict(parameters or {}), "settings": dict(settings or {})}
        result: Sequence[Sequence[Any]] = self._call("query", query, **bound).result_rows
        return result

    def arrow(
        self, query: str, *, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the answer as a pyarrow Table.

        Raises:
            PipelineError: ClickHouse refuses or does not answer; its error code determines the kind.
        """
        return self._call("query_arrow", query, parameters=dict(parameters or {}), settings=dict(settings or {}))

    def close(self) -> None:
        """Close the connections; the next call opens new connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._client is None:
                self._client = clickhouse_connect.get_client(**self._connect)  # type: ignore[arg-type]
            return getattr(self._client, method)(*args, **kwargs)
        except (ClickHouseError, urllib3.exceptions.HTTPError, OSError) as error:
            if (why := tls.why_refused(error)) is not None:
                raise tls.refusal(f"ClickHouse at {self.address}", why, _EXAMPLE) from error
            if not isinstance(error, ClickHouseError):
                raise error_of(None, f"{self.address} does not answer ({type(error).__name__})") from error
            code = getattr(error, "code", None)
            text = str(error) if code is not None else f"{self.address} does not answer ({error})"
            raise error_of(code, text) from error


def _tls_options(parts: SplitResult) -> dict[str, str]:
    """Return the driver's TLS arguments from the URL's query."""
    options = dict(parse_qsl(parts.query))
    unknown = sorted(options.keys() - set(_FILES))
    if unknown or (options and parts.scheme != "https"):
        raise FatalError(
            f"{_VARIABLE} has an unknown option: {', '.join(unknown)}"
            if unknown
            else f"{_VARIABLE} has TLS options, but no TLS: write https://",
            todo=f"The options are {', '.join(_FILES)}; they need https://",
            exit_code=Exit.SETTINGS,
        )
    tls.check_files(_VARIABLE, options, _FILES)
    # Without a password, the client certificate is the login. With a password, the certificate only opens the TLS
    # connection.
    return options | ({"tls_mode": "strict"} if "client_cert" in options and parts.password else {})

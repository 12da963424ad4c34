"""Statement -> ClickHouse's answer, or a `PipelineError`.

Edge: HTTP, with clickhouse-connect; no other file connects to ClickHouse. This file translates the driver's exceptions
by ClickHouse's error code, and answers of a proxy by their HTTP status. A request without an answer raises
TransientError. It may have had an effect: an insert is repeated with the same deduplication token.

Reads go through the driver, which knows the types. Commands are sent here, with the statement and its data in the body:
the driver puts the statement into the URL if there is data, and proxies limit the length of URLs. The URL carries the
database and the values of parameters. A proxy that removes these makes ClickHouse refuse the statement.

Source: https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import clickhouse_connect
import urllib3
from clickhouse_connect import common
from clickhouse_connect.driver.binding import bind_query
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    ProgrammingError,
    scrub_error_details,
)
from clickhouse_connect.driver.httputil import check_conn_expiration

from outhaul.sink import tls
from outhaul.sink.clickhouse_errors import UNKNOWN_SETTING, error_of, error_of_status
from outhaul.sink.clickhouse_pool import PATIENCE_S, PAUSES_S, pool, shared_pool
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.settings_clause import with_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from urllib.parse import SplitResult

    from clickhouse_connect.driver.client import Client
    from urllib3 import PoolManager

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

# Names that a header can carry as they are.
_HEADER = re.compile(r"[\x21-\x7e]+")
# The list of the server's settings is read again after this time: its version may be another one.
_KNOWN_S = 600
# ClickHouse's text of its error 115.
_UNKNOWN = re.compile(r"Unknown setting '?(\w+)")
# Headers of an answer.
_CODE = "X-ClickHouse-Exception-Code"
_PROGRESS = "x-clickhouse-progress"
# ClickHouse's text of an error that it meets after it has sent the status.
_EXCEPTION = re.compile(r"\bCode: (\d+)\. DB::Exception: ")
# What the driver's error says before ClickHouse's own text.
_DRIVER_SAYS = "server response: "
# The driver's error for an answer without an error code has the HTTP status in its text only.
_STATUS = re.compile(r"\bHTTP status (\d{3})\b")

# The list of settings is read with those of the pinned settings that could cut it off; all servers have them.
_EVERYWHERE = frozenset(
    {
        "limit", "offset", "max_result_rows", "max_result_bytes", "additional_result_filter",
        "additional_table_filters", "read_overflow_mode", "result_overflow_mode", "timeout_overflow_mode",
        "use_query_cache",
    }
)  # fmt: skip
_NAMES, _ = with_settings("SELECT name FROM system.settings", {}, _EVERYWHERE)

_REPORT = "Report this with the version of clickhouse-connect"
_NOT_CLICKHOUSE = f"Let {_VARIABLE} lead to ClickHouse's HTTP port; a proxy before it must pass answers on unchanged"


@dataclass(slots=True)
class _Server:
    """The names of the settings that a server has, for all clients of a process; None before the first question."""

    known: frozenset[str] | None = None
    known_until: float = 0.0


_SERVERS: dict[tuple[str, str], _Server] = {}


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
        parts, host, port = _split(url)
        self._connect = {
            "interface": parts.scheme,
            "host": host,
            "port": port,
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
        self._certificates = {name: files[name] for name in _FILES if name in files}
        self._apart = pool(parts.scheme, host, port, self._certificates) if apart else None
        self._client: Client | None = None
        self._server = _SERVERS.setdefault((parts.scheme, parts.netloc), _Server())

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
        """Run a statement.

        Args:
            statement: its text.
            parameters: values of `{name:Type}` in it.
            settings: settings of this statement, which replace the pinned ones (sink/pinned_settings.py).
            data: data of an INSERT, which follows the statement in the body of the request.

        Raises:
            PipelineError: ClickHouse refuses or does not answer; its error code determines the kind.
        """
        # Two calls, since only questions may be repeated.
        self._call(self._settings_of_server)

        def send(client: Client) -> None:
            text, in_url = with_settings(statement, settings or {}, self._settings_of_server(client))
            bound, values = bind_query(text, dict(parameters or {}), client.server_tz)
            body = bound.encode() if isinstance(bound, str) else bound
            self._post(client, body, data, {**in_url, **values})

        self._call(send, is_question=False)

    def rows(
        self, query: str, *, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        """Return the rows of a query; the arguments are those of `command`.

        Raises:
            PipelineError: ClickHouse refuses or does not answer; its error code determines the kind.
        """

        def ask(client: Client) -> Any:
            text, _ = with_settings(query, settings or {}, self._settings_of_server(client))
            return client.query(text, parameters=dict(parameters or {})).result_rows

        result: Sequence[Sequence[Any]] = self._call(ask)
        return result

    def arrow(
        self, query: str, *, parameters: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the answer as a pyarrow Table; the arguments are those of `command`.

        Raises:
            PipelineError: ClickHouse refuses or does not answer; its error code determines the kind.
        """

        def ask(client: Client) -> Any:
            text, _ = with_settings(query, settings or {}, self._settings_of_server(client))
            return client.query_arrow(text, parameters=dict(parameters or {}))

        return self._call(ask)

    def close(self) -> None:
        """Close the connections; the next call opens new connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _call(self, ask: Callable[[Client], Any], *, is_question: bool = True) -> Any:
        begun_at, pauses = time.monotonic(), iter(PAUSES_S)
        while True:
            try:
                return self._translated(ask)
            except FatalError as error:
                if error.code != UNKNOWN_SETTING or (name := _UNKNOWN.search(error.message)) is None:
                    raise
                # Two versions behind one address: the server that listed the name is another one. Each name is left out
                # once; a name that comes again stands in the statement itself.
                if (known := self._server.known) is not None:
                    if name[1] not in known:
                        raise
                    self._server.known = known - {name[1]}
            except TransientError as error:
                if error.code is not None:
                    raise
                # It may have another version when it answers again.
                self._server.known = None
                pause_s = next(pauses, None) if is_question else None
                if pause_s is None or time.monotonic() - begun_at > PATIENCE_S:
                    raise
                time.sleep(pause_s)

    def _translated(self, ask: Callable[[Client], Any]) -> Any:
        try:
            if self._client is None:
                manager = self._apart or self._shared_pool()
                self._client = clickhouse_connect.get_client(**self._connect, pool_mgr=manager)  # type: ignore[arg-type]
                if _HEADER.fullmatch(database := str(self._connect["database"])):
                    # Proxies that remove parameters of the URL let headers pass.
                    self._client.headers["X-ClickHouse-Database"] = database  # type: ignore[attr-defined]
            return ask(self._client)
        except (ClickHouseError, urllib3.exceptions.HTTPError, OSError) as error:
            if (why := tls.why_refused(error)) is not None:
                raise tls.refusal(f"ClickHouse at {self.address}", why, _EXAMPLE) from error
            if not isinstance(error, ClickHouseError):
                raise error_of(None, f"{self.address} does not answer ({type(error).__name__})") from error
            raise self._error_of_driver(error) from error

    def _shared_pool(self) -> PoolManager:
        scheme, host, port = (self._connect[name] for name in ("interface", "host", "port"))
        return shared_pool(str(scheme), str(host), int(str(port)), self._certificates)

    def _error_of_driver(self, error: ClickHouseError) -> Exception:
        code = getattr(error, "code", None)
        if code is not None:
            return error_of(code, str(error).partition(_DRIVER_SAYS)[2] or str(error), user=self._user)
        if status := _STATUS.search(str(error)):
            return error_of_status(int(status[1]), self.address)
        if isinstance(error, ProgrammingError):
            # The driver itself has refused the call, and will again.
            return FatalError(f"ClickHouse: {error}", todo=_REPORT, exit_code=Exit.CLICKHOUSE_REFUSED)
        return error_of(None, f"{self.address} does not answer ({error})")

    @property
    def _user(self) -> str:
        return str(self._connect["username"])

    def _settings_of_server(self, client: Client) -> frozenset[str]:
        known, now = self._server.known, time.monotonic()
        if known is None or now > self._server.known_until:
            known = self._server.known = _names_of_settings(client)
            self._server.known_until = now + _KNOWN_S
        return known

    def _post(self, client: Client, statement: bytes, data: bytes | None, parameters: Mapping[str, Any]) -> None:
        """Send a statement, and check that ClickHouse itself says that it has been executed to its end."""
        # An error that ClickHouse meets after its first bytes is in the status only if it holds the answer back.
        check_conn_expiration(client.http)  # type: ignore[attr-defined]
        query = urlencode({"database": self._connect["database"], "wait_end_of_query": 1, **parameters})
        response = client.http.request(  # type: ignore[attr-defined] # a client over HTTP has a pool
            "POST",
            f"{client.url}/?{query}",  # type: ignore[attr-defined]
            body=statement if data is None else b"\n".join((statement, data)),
            headers={**client.headers, "Content-Type": "application/octet-stream"},  # type: ignore[attr-defined]
            timeout=client.timeout,  # type: ignore[attr-defined]
            retries=client.http_retries,  # type: ignore[attr-defined]
            redirect=False,
        )
        text = response.data.decode(errors="backslashreplace")
        code = response.headers.get(_CODE) or (found[1] if (found := _EXCEPTION.search(text)) else None)
        if code:
            raise error_of(int(code), scrub_error_details(text.strip()), user=self._user)
        if response.status != HTTPStatus.OK:
            raise error_of_status(response.status, self.address, rows_bytes=len(data or b""))
        if all(name.lower() == _PROGRESS for name in response.headers):
            # The connection ended among the headers, and http.client takes that for the end of the headers.
            raise TransientError(f"ClickHouse: {self.address} ended the answer early")
        if statement[:6].upper() == b"INSERT" and text.strip():
            raise FatalError(
                f"{self.address} answers an INSERT with {len(text)} characters, which ClickHouse does not do",
                todo=_NOT_CLICKHOUSE,
                exit_code=Exit.CLICKHOUSE_REFUSED,
            )


def _split(url: str) -> tuple[SplitResult, str, int]:
    """Return the parts of a URL, its host and its port.

    Raises:
        FatalError: it is not of the form that outhaul takes; the message does not quote it, since it has a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in {"http", "https"} or not host or parts.fragment:
        raise FatalError(
            f"{_VARIABLE} is not of the form http[s]://user:password@host:port/database",
            todo="%-encode special characters in user and password: # is %23, / is %2F, @ is %40",
            exit_code=Exit.SETTINGS,
        )
    return parts, host, port or (8443 if parts.scheme == "https" else 8123)


def _names_of_settings(client: Client) -> frozenset[str]:
    names = frozenset(str(name) for (name,) in client.query(_NAMES).result_rows)
    if hidden := _EVERYWHERE - names:
        raise FatalError(
            f"ClickHouse: system.settings does not list {', '.join(sorted(hidden))}",
            todo="Remove row policies and filters on system.settings for this ClickHouse user",
            exit_code=Exit.CLICKHOUSE_REFUSED,
        )
    return names


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

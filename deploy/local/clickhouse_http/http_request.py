"""Target and headers of an HTTP request -> its login, settings and parameters, and the form of the answer.

Pure.

Source: https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import HTTP
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from outhaul.deploy.local.clickhouse_http.sql_statement import NOT_IMPLEMENTED, StatementError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BAD_ARGUMENTS = 36
UNKNOWN_SETTING = 115
AUTHENTICATION_FAILED = 516

# Parameters of the request itself; all others are settings of the query.
_RESERVED = {
    "query", "database", "default_format", "user", "password", "quota_key", "query_id", "stacktrace", "buffer_size",
    "wait_end_of_query", "session_id", "session_timeout", "session_check", "client_protocol_version", "close_session",
    "compress", "decompress", "role", "http_make_head_request",
}  # fmt: skip
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_METHODS = ("lz4", "zstd", "gzip", "deflate")
_ON = {"1", "true"}


@dataclass(frozen=True, slots=True)
class Login:
    """Name and password from a request."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Request:
    """A query with its settings. `query` is the text in the URL; the body may hold more of it."""

    query: str
    database: str
    default_format: str
    query_id: str
    settings: tuple[tuple[str, str], ...]
    parameters: dict[str, str]
    compression: str | None
    wait_end_of_query: bool


def login(target: str, headers: Mapping[str, str]) -> Login:
    """Return name and password: from X-ClickHouse headers, else Basic, else the URL, else `default` and no password.

    Raises:
        StatementError: the scheme is not Basic, or the credentials are not valid.
    """
    user, password = headers.get("x-clickhouse-user", ""), headers.get("x-clickhouse-key", "")
    if user or password:
        return Login(user or "default", password)
    if basic := headers.get("authorization", ""):
        scheme, _, text = basic.partition(" ")
        try:
            user, _, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            scheme = ""
        if scheme.lower() != "basic":
            raise StatementError(
                AUTHENTICATION_FAILED,
                "AUTHENTICATION_FAILED",
                "Invalid authentication: this HTTP Authorization scheme is not supported",
            )
        return Login(user, password)
    parameters = dict(_pairs(target))
    return Login(parameters.get("user", "default"), parameters.get("password", ""))


def login_error(name: str) -> StatementError:
    """Return ClickHouse's error for a wrong name or password; it is the same for both."""
    message = f"{name}: Authentication failed: password is incorrect, or there is no user with such name"
    return StatementError(AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED", message)


def read_request(method: str, target: str, headers: Mapping[str, str], form: Iterable[tuple[str, str]] = ()) -> Request:
    """Return the query of a request, with its settings and parameters.

    Args:
        method: the HTTP method; all but POST are read-only.
        target: path and query string.
        headers: their names in lower case.
        form: fields of a multipart body, used like parameters of the URL.

    Raises:
        StatementError: the name of a setting is invalid, or the embedded engine does not support a parameter.
    """
    pairs = [*_pairs(target), *form]
    for name, value in pairs:
        if name != "query" and not _is_text(name + value):
            raise StatementError(
                BAD_ARGUMENTS, "BAD_ARGUMENTS", "The embedded engine's HTTP front takes parameters in UTF-8"
            )
    reserved = {name: value for name, value in pairs if name in _RESERVED}
    for name in ("compress", "decompress"):
        if reserved.get(name, "0").lower() in _ON:
            raise StatementError(
                NOT_IMPLEMENTED,
                "NOT_IMPLEMENTED",
                f"The embedded engine's HTTP front has no '{name}': use Content-Encoding and Accept-Encoding",
            )
    parameters = {name.removeprefix("param_"): value for name, value in pairs if name.startswith("param_")}
    settings = {
        name: value for name, value in pairs if name and name not in _RESERVED and not name.startswith("param_")
    }
    for name in settings:
        if not _SETTING.fullmatch(name):
            raise StatementError(UNKNOWN_SETTING, "UNKNOWN_SETTING", f"Unknown setting '{name}'")
    if method != "POST":
        # `readonly` comes last: after `readonly = 1` no setting can be changed. `readonly = 2` permits other settings.
        settings["readonly"] = settings.pop("readonly", "2") if settings.get("readonly", "0") != "0" else "2"
    return Request(
        query="\n".join(value for name, value in pairs if name == "query" and value),
        database=headers.get("x-clickhouse-database") or reserved.get("database", ""),
        default_format=headers.get("x-clickhouse-format") or reserved.get("default_format", "") or "TabSeparated",
        query_id=reserved.get("query_id") or headers.get("x-clickhouse-query-id") or str(uuid.uuid4()),
        settings=tuple(settings.items()),
        parameters=parameters,
        compression=_compression(headers.get("accept-encoding", ""), settings),
        wait_end_of_query=reserved.get("wait_end_of_query", "0").lower() in _ON,
    )


def set_statement(settings: Iterable[tuple[str, str]]) -> str:
    """Return the SET statement for these settings."""
    return "SET " + ", ".join(f"{name} = {quoted(value)}" for name, value in settings)


def quoted(value: str) -> str:
    """Return the string literal of a value, with its quotes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def form_fields(content_type: str, body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a multipart body.

    Raises:
        StatementError: a field is a file. Clients send external tables as files.
    """
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    fields = []
    for part in message_from_bytes(head + body, policy=HTTP).iter_parts():
        if part.get_filename() is not None:
            raise StatementError(
                NOT_IMPLEMENTED, "NOT_IMPLEMENTED", "The embedded engine's HTTP front takes no external tables"
            )
        name = part.get_param("name", header="Content-Disposition")
        value = part.get_payload(decode=True)
        fields.append((str(name), value.decode(errors="surrogateescape") if isinstance(value, bytes) else ""))
    return fields


def _pairs(target: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(target).query, keep_blank_values=True, errors="surrogateescape")


def _is_text(value: str) -> bool:
    """Return whether this was valid UTF-8; if not, `surrogateescape` has left lone surrogates in it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _compression(accepted: str, settings: Mapping[str, str]) -> str | None:
    if settings.get("enable_http_compression", "0").lower() not in _ON:
        return None
    offers = {offer.partition(";")[0].strip().lower() for offer in accepted.split(",")}
    return next((method for method in _METHODS if method in offers), None)

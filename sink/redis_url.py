"""OUTHAUL_REDIS_URL -> which kind of Redis it names, and the options of outhaul's own connections and of the broker's.

Pure, except that `check` tests whether the files that the URL names can be read. Both clients get the same TLS options.
redis-py reads `ssl_*` options from a URL. kombu decides by the name of its transport: under another name it would
connect without TLS, or without verification.

Source: https://redis.readthedocs.io/en/stable/connections.html#redis.SSLConnection
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from outhaul.sink import redis_keys, tls
from outhaul.sink.errors import Exit, FatalError

VARIABLE = "OUTHAUL_REDIS_URL"
_END_OF_SERVERS = re.compile(r"[/?#]")
EXAMPLE = f"{VARIABLE}=rediss://...?ssl_ca_certs=/path/to/ca.pem"
SENTINEL_EXAMPLE = "redis+sentinel://user:password@s1:26379,s2:26379,s3:26379/0?master=NAME"
CLUSTER_EXAMPLE = "redis+cluster://user:password@n1:6379,n2:6379"

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = {*_FILES, "ssl_ca_path", "ssl_keyfile_password", "ssl_password"}
# Options whose value is fixed: outhaul always verifies certificates and names.
_FIXED = {"ssl_cert_reqs": "required", "ssl_check_hostname": "true"}

_MASTER, _SENTINEL_USER, _SENTINEL_PASSWORD = "master", "sentinel_user", "sentinel_password"
_PORTS = range(1, 1 << 16)

Server = tuple[str, int]


class RedisKind(Enum):
    """Which kind of Redis the URL names."""

    ONE = "one server"
    SENTINEL = "Sentinels"
    CLUSTER = "a cluster"


_SCHEMES = {"sentinel": RedisKind.SENTINEL, "cluster": RedisKind.CLUSTER}
_DEFAULT_PORTS = {RedisKind.SENTINEL: 26379, RedisKind.CLUSTER: 6379}
_OWN_OPTIONS = {RedisKind.SENTINEL: (_MASTER, _SENTINEL_USER, _SENTINEL_PASSWORD), RedisKind.CLUSTER: ()}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The Sentinels, or nodes of a cluster, to ask where the keys are; the logins; no TLS options.

    `username` and `password` are for the server that holds the keys.
    """

    kind: RedisKind
    servers: tuple[Server, ...]
    database: int
    username: str | None
    password: str | None = field(repr=False)
    master: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)


def check(url: str) -> None:
    """Check the URL; if it names a single server, redis-py checks the rest when it opens the client.

    Raises:
        FatalError: the URL names several servers without their kind, or lacks what is needed to find the right
            server; a TLS option is unknown, would turn off verification, or names a file that cannot be read.
    """
    address(url)
    scheme, options = _tls_options(url)
    if options and not _has_tls(scheme):
        raise FatalError(
            f"{VARIABLE} has TLS options, but its scheme is {scheme}",
            todo=f"Write {scheme.replace('redis', 'rediss', 1)}://",
            exit_code=Exit.SETTINGS,
        )
    for name, value in options.items():
        if name in _FIXED and value.lower() not in {_FIXED[name], f"cert_{_FIXED[name]}"}:
            raise FatalError(
                f"{VARIABLE}: {name}={value} would turn off the verification of the server",
                todo=f"Remove this option, and name the CA: {EXAMPLE}",
                exit_code=Exit.SETTINGS,
            )
        if name not in _OPTIONS and name not in _FIXED:
            raise FatalError(
                f"{VARIABLE} has an unknown option: {name}",
                todo=f"The options are {', '.join(sorted(_OPTIONS))}",
                exit_code=Exit.SETTINGS,
            )
    tls.check_files(VARIABLE, options, _FILES)


def address(url: str) -> RedisAddress | None:
    """Return the servers to ask where the keys are; None if the URL names the one server that holds them.

    Raises:
        FatalError: the URL names several servers without their kind, or lacks what is needed to find the right server.
    """
    try:
        parts = split(url)
    except ValueError as error:
        raise _no_url(str(error)) from None
    named = parts.netloc.rpartition("@")[2]
    kind = _kind(parts.scheme, several="," in named)
    if kind is RedisKind.ONE:
        return None
    options = _own_options(parts, kind)
    return RedisAddress(
        kind,
        tuple(_server(one, number, kind) for number, one in enumerate(named.split(","), 1)),
        _database(parts, kind),
        _login(parts.username),
        _login(parts.password),
        options.get(_MASTER, ""),
        options.get(_SENTINEL_USER),
        options.get(_SENTINEL_PASSWORD),
    )


def client_options(url: str) -> dict[str, Any]:
    """Return the TLS arguments of redis-py for this URL; empty without TLS."""
    scheme, options = _tls_options(url)
    if not _has_tls(scheme):
        return {}
    named = {name: value for name, value in options.items() if name in _OPTIONS}
    return named | {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


def broker_url(url: str, at: Server | None = None) -> str:
    """Return the URL for Celery: without TLS options, which Celery takes in a setting of its own, and with one server.

    Args:
        url: OUTHAUL_REDIS_URL.
        at: which server, if the URL names several; the first by default.
    """
    parts = split(url)
    if (named := address(url)) is not None:
        host, port = at or named.servers[0]
        login = "".join(parts.netloc.rpartition("@")[:2])
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{parts.scheme.partition('+')[0]}://{login}{where}/{named.database}"
    rest = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ssl_")]
    return parts._replace(query=urlencode(rest)).geturl()


def key_prefix(url: str, source: str) -> str:
    """Return the prefix of Celery's keys: in a cluster, a hash tag that puts them on the node of our keys; else empty.

    Raises:
        FatalError: see `address`.
    """
    named = address(url)
    return redis_keys.celery_prefix(source) if named is not None and named.kind is RedisKind.CLUSTER else ""


def split(url: str) -> SplitResult:
    """Split a URL that may name several servers; newer Pythons refuse an address in brackets after the first one.

    Raises:
        ValueError: it is no URL.
    """
    scheme, _, rest = url.partition("://")
    servers = _END_OF_SERVERS.split(rest, maxsplit=1)[0]
    if "," not in servers:
        return urlsplit(url)
    return urlsplit(f"{scheme}://several{rest[len(servers) :]}")._replace(netloc=servers)


def _kind(scheme: str, *, several: bool) -> RedisKind:
    base, _, suffix = scheme.partition("+")
    if base in {"redis", "rediss"} and suffix in _SCHEMES:
        return _SCHEMES[suffix]
    if "sentinel" in scheme or "cluster" in scheme:
        raise _no_url(f"{scheme}:// is an unknown scheme")
    if several:
        raise _no_url("it names several servers, but not their kind")
    return RedisKind.ONE


def _no_url(why: str) -> FatalError:
    todo = f"Write {SENTINEL_EXAMPLE}, or {CLUSTER_EXAMPLE}; with TLS, rediss+…"
    return FatalError(f"{VARIABLE}: {why}", todo=todo, exit_code=Exit.SETTINGS)


def _own_options(parts: SplitResult, kind: RedisKind) -> dict[str, str]:
    options = {name: value for name, value in parse_qsl(parts.query) if not name.startswith("ssl_")}
    if unknown := sorted(options.keys() - set(_OWN_OPTIONS[kind])):
        known = ", ".join(_OWN_OPTIONS[kind]) or "none"
        raise FatalError(
            f"{VARIABLE} has an unknown option for {parts.scheme}://: {', '.join(unknown)}",
            todo=f"The options are: {known}; with TLS also {', '.join(sorted(_OPTIONS))}",
            exit_code=Exit.SETTINGS,
        )
    if kind is RedisKind.SENTINEL and _MASTER not in options:
        raise FatalError(
            f"{VARIABLE} does not name the primary for which to ask the Sentinels",
            todo="Add ?master=NAME; NAME follows `sentinel monitor` in the Sentinels' configuration",
            exit_code=Exit.SETTINGS,
        )
    return options


def _server(text: str, number: int, kind: RedisKind) -> Server:
    # The message does not quote the text: after an unencoded slash or at sign, it may be a part of the password.
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, _DEFAULT_PORTS[kind] if parts.port is None else parts.port
    except ValueError:
        host, port = None, 0
    if not host or port not in _PORTS:
        raise FatalError(
            f"{VARIABLE}: server {number} is not of the form host:port",
            todo="Separate servers by commas, and %-encode special characters in user and password",
            exit_code=Exit.SETTINGS,
        )
    return host, port


def _database(parts: SplitResult, kind: RedisKind) -> int:
    text = parts.path.strip("/")
    if text and not (text.isascii() and text.isdecimal()):
        raise FatalError(f"{VARIABLE}: the database is not a number", todo="Write /0", exit_code=Exit.SETTINGS)
    database = int(text or 0)
    if database and kind is RedisKind.CLUSTER:
        raise FatalError(
            f"{VARIABLE} names database {database}, but a cluster has database 0 only",
            todo="Remove it; pipelines with different OUTHAUL_SOURCE can share a cluster",
            exit_code=Exit.SETTINGS,
        )
    return database


def _login(text: str | None) -> str | None:
    return unquote(text) if text else None


def _has_tls(scheme: str) -> bool:
    return scheme.partition("+")[0] == "rediss"


def _tls_options(url: str) -> tuple[str, dict[str, str]]:
    parts = split(url)
    return parts.scheme, {name: value for name, value in parse_qsl(parts.query) if name.startswith("ssl_")}

"""OUTHAUL_REDIS_URL -> which kind of Redis it names, and the options of outhaul's own connections and of the broker's.

Pure, except that `check` tests whether the files that the URL names can be read. The options of all connections are
made here, those of kombu, too: kombu reads a URL in another way than redis-py, and decides about TLS by the name of its
transport.

Source: https://redis.readthedocs.io/en/stable/connections.html#redis.SSLConnection
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from redis.connection import parse_url

from outhaul.sink import tls
from outhaul.sink.errors import Exit, FatalError

VARIABLE = "OUTHAUL_REDIS_URL"
_END_OF_SERVERS = re.compile(r"[/?#]")
EXAMPLE = f"{VARIABLE}=rediss://...?ssl_ca_certs=/path/to/ca.pem"
SENTINEL_EXAMPLE = "redis+sentinel://user:password@s1:26379,s2:26379,s3:26379/0?master=NAME"
CLUSTER_EXAMPLE = "redis+cluster://user:password@n1:6379,n2:6379"

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = {*_FILES, "ssl_ca_path", "ssl_keyfile_password", "ssl_password"}
# Options of redis-py for one server. The others would change what outhaul's own commands return, or their number at the
# same time.
_PASSED_ON = {
    "client_name", "db", "health_check_interval", "password", "protocol", "socket_connect_timeout", "socket_keepalive",
    "socket_timeout", "username",
}  # fmt: skip
# Limits of their values, in seconds: outhaul waits up to a second for a report, and ends threads within twelve.
_TIMEOUTS, _LEAST_TIMEOUT_S, _MOST_TIMEOUT_S = ("socket_connect_timeout", "socket_timeout"), 2, 10
_PROTOCOLS = {2, 3}
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
    """Check the URL.

    Raises:
        FatalError: redis-py does not take it; it names several servers without their kind, or lacks what is needed to
            find the right server; an option is unknown, or has a value with which outhaul would not work; a TLS option
            would turn off verification, or names a file that cannot be read.
    """
    named = address(url)
    scheme, options = _tls_options(url)
    if options and not _has_tls(scheme):
        raise FatalError(
            f"{VARIABLE} has TLS options, but its scheme is {scheme}",
            todo=f"Write {scheme.replace('redis', 'rediss', 1)}://" if "redis" in scheme else "Remove them",
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
    if named is None:
        server_options(url)


def server_options(url: str) -> dict[str, Any]:
    """Return the arguments of redis-py's connection pool for a URL that names one server.

    Raises:
        FatalError: as of `check`.
    """
    parts = split(url)
    unknown = sorted({name for name, _ in parse_qsl(parts.query) if not name.startswith("ssl_")} - _PASSED_ON)
    if unknown:
        raise _wrong(f"the option {', '.join(unknown)} does not work", f"The options are {_names(_PASSED_ON)}")
    if parts.fragment:
        raise _wrong("it has a #", "%-encode special characters in user and password: # is %23")
    if parts.scheme == "unix" and (parts.netloc.rpartition("@")[2] or not parts.path.strip("/")):
        raise _wrong("the path of the socket is not absolute", "Write unix:///run/redis.sock")
    try:
        # The texts of these errors may quote the password.
        found: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        port_of = parts.port
    except ValueError:
        todo = "Write redis://user:password@host:6379/0, rediss:// or unix:///path; %-encode special characters"
        raise _wrong("it is not a URL of Redis, or an option has a wrong value", todo) from None
    if parts.scheme != "unix":
        if (port_of or 1) not in _PORTS:
            raise _wrong(f"{port_of} is not a port", "Write redis://host:6379/0")
        _database(parts, RedisKind.ONE)
    _check_values(found)
    return found | client_options(url)


def _check_values(options: dict[str, Any]) -> None:
    for name in _TIMEOUTS:
        if not _LEAST_TIMEOUT_S <= options.get(name, _MOST_TIMEOUT_S) <= _MOST_TIMEOUT_S:
            todo = f"Write {_LEAST_TIMEOUT_S} to {_MOST_TIMEOUT_S} seconds, or leave it out"
            raise _wrong(f"{name}={options[name]:g} does not work", todo)
    if options.get("protocol", 3) not in _PROTOCOLS:
        raise _wrong(f"protocol={options['protocol']} does not exist", "Write protocol=2 or protocol=3")
    if options.get("db", 0) < 0 or options.get("health_check_interval", 0) < 0:
        raise _wrong("a number is below 0", "Write db=0")


def _wrong(why: str, todo: str) -> FatalError:
    return FatalError(f"{VARIABLE}: {why}", todo=todo, exit_code=Exit.SETTINGS)


def _names(options: set[str]) -> str:
    return ", ".join(sorted(options))


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
    login = "".join(parts.netloc.rpartition("@")[:2])
    if (named := address(url)) is not None:
        host, port = at or named.servers[0]
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{parts.scheme.partition('+')[0]}://{login}{where}/{named.database}"
    options = server_options(url)
    database = options.get("db", 0)
    if "path" in options:
        # Celery and Flower show this address; the transport connects to the socket.
        return f"redis://{quote(options['path'], safe='')}/{database}"
    user, password = (quote(options.get(name) or "", safe="") for name in ("username", "password"))
    login = f"{user}:{password}@" if user or password else ""
    return f"{parts.scheme}://{login}{parts.netloc.rpartition('@')[2]}/{database}"


def place(url: str) -> str:
    """Return the server and the database of a URL that names one server, without secrets.

    Raises:
        FatalError: as of `check`.
    """
    options = server_options(url)
    server = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return f"{server}/{options.get('db', 0)}"


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

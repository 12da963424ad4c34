"""OUTHAUL_REDIS_URL -> what kind of Redis it names, and what the payloads' connections and the broker's are made with.

Pure, but for a look whether the files that the URL names can be read. The same TLS goes to both: redis-py reads `ssl_*`
options out of a URL, and verifies by them; kombu goes by the name of its own transport, and would connect without TLS
where another is named, or without verifying.

Source: https://redis.readthedocs.io/en/stable/connections.html#redis.SSLConnection
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from outhaul.sink import redis_keys, tls
from outhaul.sink.errors import Exit, FatalError

VARIABLE = "OUTHAUL_REDIS_URL"
EXAMPLE = f"{VARIABLE}=rediss://...?ssl_ca_certs=/path/to/ca.pem"
SENTINEL_EXAMPLE = "redis+sentinel://user:password@s1:26379,s2:26379,s3:26379/0?master=NAME"
CLUSTER_EXAMPLE = "redis+cluster://user:password@n1:6379,n2:6379"

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = {*_FILES, "ssl_ca_path", "ssl_keyfile_password", "ssl_password"}
# What says less than we do anyway.
_SAID = {"ssl_cert_reqs": "required", "ssl_check_hostname": "true"}

_MASTER, _SENTINEL_USER, _SENTINEL_PASSWORD = "master", "sentinel_user", "sentinel_password"
_PORTS = range(1, 1 << 16)

Server = tuple[str, int]


class Kind(Enum):
    """What the URL names."""

    ONE = "one server"
    SENTINEL = "Sentinels"
    CLUSTER = "a cluster"


_SCHEMES = {"sentinel": Kind.SENTINEL, "cluster": Kind.CLUSTER}
_DEFAULT_PORTS = {Kind.SENTINEL: 26379, Kind.CLUSTER: 6379}
_OWN_OPTIONS = {Kind.SENTINEL: (_MASTER, _SENTINEL_USER, _SENTINEL_PASSWORD), Kind.CLUSTER: ()}


@dataclass(frozen=True, slots=True)
class Address:
    """Servers that are asked where the keys are, and how to log in there and with them; without what is for TLS."""

    kind: Kind
    servers: tuple[Server, ...]
    database: int
    username: str | None
    password: str | None = field(repr=False)
    master: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)


def check(url: str) -> None:
    """Check the URL, but for what redis-py says of one that names a single server.

    Raises:
        FatalError: it names servers and not of which kind, or not all that is needed to find the right one; a TLS
            option is unknown, would verify less, or names a file that cannot be read.
    """
    address(url)
    scheme, options = _tls_options(url)
    if options and not _has_tls(scheme):
        raise FatalError(
            f"{VARIABLE} has TLS options, and no TLS: its scheme is {scheme}",
            todo=f"Write {scheme.replace('redis', 'rediss', 1)}://",
            exit_code=Exit.SETTINGS,
        )
    for name, value in options.items():
        if name in _SAID and value.lower() not in {_SAID[name], f"cert_{_SAID[name]}"}:
            raise FatalError(
                f"{VARIABLE}: {name}={value} would trust whoever answers",
                todo=f"Leave it out, and name the CA: {EXAMPLE}",
                exit_code=Exit.SETTINGS,
            )
        if name not in _OPTIONS and name not in _SAID:
            raise FatalError(
                f"{VARIABLE}: {name} is no option of ours",
                todo=f"There are {', '.join(sorted(_OPTIONS))}",
                exit_code=Exit.SETTINGS,
            )
    tls.check_files(VARIABLE, options, _FILES)


def address(url: str) -> Address | None:
    """Return which servers to ask where the keys are; None where the URL names one that has them.

    Raises:
        FatalError: it names several servers and not what they are, or not all that is needed to find the right one.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _no_url(str(error)) from None
    named = parts.netloc.rpartition("@")[2]
    kind = _kind(parts.scheme, several="," in named)
    if kind is Kind.ONE:
        return None
    options = _own_options(parts, kind)
    return Address(
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
    """Return the TLS arguments of redis-py for this URL; none where it is without TLS."""
    scheme, options = _tls_options(url)
    if not _has_tls(scheme):
        return {}
    named = {name: value for name, value in options.items() if name in _OPTIONS}
    return named | {"ssl_cert_reqs": "required", "ssl_check_hostname": True}


def broker_url(url: str, at: Server | None = None) -> str:
    """Return the URL for Celery: without the TLS options, which are said beside it, and with one server of several.

    Args:
        url: OUTHAUL_REDIS_URL.
        at: which server, where the URL names several; the first, unless given.
    """
    parts = urlsplit(url)
    if (named := address(url)) is not None:
        host, port = at or named.servers[0]
        login = "".join(parts.netloc.rpartition("@")[:2])
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{parts.scheme.partition('+')[0]}://{login}{where}/{named.database}"
    rest = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ssl_")]
    return parts._replace(query=urlencode(rest)).geturl()


def key_prefix(url: str, source: str) -> str:
    """Return what stands before Celery's keys: in a cluster, what puts them beside ours; elsewhere nothing.

    Raises:
        FatalError: see `address`.
    """
    named = address(url)
    return redis_keys.celery_prefix(source) if named is not None and named.kind is Kind.CLUSTER else ""


def _kind(scheme: str, *, several: bool) -> Kind:
    base, _, suffix = scheme.partition("+")
    if base in {"redis", "rediss"} and suffix in _SCHEMES:
        return _SCHEMES[suffix]
    if "sentinel" in scheme or "cluster" in scheme:
        raise _no_url(f"{scheme}:// is no scheme of ours")
    if several:
        raise _no_url("it names several servers, and not what they are")
    return Kind.ONE


def _no_url(why: str) -> FatalError:
    todo = f"Write {SENTINEL_EXAMPLE}, or {CLUSTER_EXAMPLE}; with TLS, rediss+…"
    return FatalError(f"{VARIABLE}: {why}", todo=todo, exit_code=Exit.SETTINGS)


def _own_options(parts: SplitResult, kind: Kind) -> dict[str, str]:
    options = {name: value for name, value in parse_qsl(parts.query) if not name.startswith("ssl_")}
    if unknown := sorted(options.keys() - set(_OWN_OPTIONS[kind])):
        known = ", ".join(_OWN_OPTIONS[kind]) or "none"
        raise FatalError(
            f"{VARIABLE}: {', '.join(unknown)} is no option of {parts.scheme}://",
            todo=f"There are {known}, and with TLS {', '.join(sorted(_OPTIONS))}",
            exit_code=Exit.SETTINGS,
        )
    if kind is Kind.SENTINEL and _MASTER not in options:
        raise FatalError(
            f"{VARIABLE} does not say which primary the Sentinels are to be asked for",
            todo="Add ?master=NAME, with the name that stands after `sentinel monitor` in their configuration",
            exit_code=Exit.SETTINGS,
        )
    return options


def _server(text: str, number: int, kind: Kind) -> Server:
    # The text itself is not printed: where a password has a slash or an at sign in it, it may be a part of that.
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, _DEFAULT_PORTS[kind] if parts.port is None else parts.port
    except ValueError:
        host, port = None, 0
    if not host or port not in _PORTS:
        raise FatalError(
            f"{VARIABLE}: server {number} is no host:port",
            todo="Write host:port with a comma between two, and %-encode what is special in user and password",
            exit_code=Exit.SETTINGS,
        )
    return host, port


def _database(parts: SplitResult, kind: Kind) -> int:
    text = parts.path.strip("/")
    if text and not (text.isascii() and text.isdecimal()):
        raise FatalError(f"{VARIABLE}: the database is no number", todo="Write /0", exit_code=Exit.SETTINGS)
    database = int(text or 0)
    if database and kind is Kind.CLUSTER:
        raise FatalError(
            f"{VARIABLE}: database {database}, and a cluster has 0 alone",
            todo="Leave it out; pipelines with an OUTHAUL_SOURCE each do not meet in one cluster",
            exit_code=Exit.SETTINGS,
        )
    return database


def _login(text: str | None) -> str | None:
    return unquote(text) if text else None


def _has_tls(scheme: str) -> bool:
    return scheme.partition("+")[0] == "rediss"


def _tls_options(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    return parts.scheme, {name: value for name, value in parse_qsl(parts.query) if name.startswith("ssl_")}

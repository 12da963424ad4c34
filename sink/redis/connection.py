"""OUTHAUL_REDIS_URL -> connections of redis-py, which ask several servers for the right one, and close on a wrong one.

Edge: Redis; outhaul's own connections and kombu's both use this file. For a URL that names one server, they are
redis-py's own. For Sentinels or a cluster, an ordinary connection suffices as long as it
goes to the server that holds the keys. If a server answers that the keys are elsewhere, the connection is closed. Its
user connects again, and the new connection asks again for the right server.

Source: https://redis.io/docs/latest/commands/hello/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
from redis.utils import str_if_bytes

from outhaul.sink import redis_url
from outhaul.sink.redis import topology
from outhaul.sink.redis.discovery import ElsewhereError, texts
from outhaul.sink.redis_url import RedisKind, Server

if TYPE_CHECKING:
    from outhaul.sink.redis.topology import Places

# Errors of a server that cannot be written to, now or at all: a replica, a server that was cut off from its replicas or
# its cluster, a node that has given its slot away or is about to.
_ELSEWHERE = (
    redis.ReadOnlyError,
    redis.exceptions.AskError,  # and MovedError
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,  # and MasterDownError
)
_ELSEWHERE_CODES = ("NOREPLICAS", "UNBLOCKED")

# In RESP3, a server's answer to HELLO contains its role and mode.
_PROTOCOL = 3


class _FollowsPlaces:
    """A mixin for redis-py's connections: asks `Places` for the server to connect to."""

    def __init__(self, *, places: Places, in_event_loop: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._places = places
        # Whether kombu's event loop is the user: it listens to the socket. So `connect` must not replace the socket.
        self._in_event_loop = in_event_loop
        # The server that it is connected to; None until that has proved to be the right one.
        self._at: Server | None = None

    def connect(self: Any) -> None:
        """Connect, and leave a former place first; a pool calls this before it hands the connection out.

        Raises:
            ElsewhereError: no server names the place of the keys.
            redis.AuthenticationError: a server refuses the login.
        """
        if not self._in_event_loop and self._is_outdated():
            self.disconnect()
        super().connect()  # type: ignore[misc]

    def connect_check_health(self: Any, *arguments: Any, **options: Any) -> None:
        """Connect to the first named place that proves to be the right one.

        Raises:
            ElsewhereError: no place does.
            redis.AuthenticationError: a server refuses the login.
        """
        if self._sock:
            return
        failed: Exception | None = None
        self._at = None
        for found in self._places.find():
            self.host, self.port = found.place
            try:
                super().connect_check_health(*arguments, **options)  # type: ignore[misc]
                _check_role(self.handshake_metadata or {}, self._places.search.address.kind)
            except (redis.AuthenticationError, redis.exceptions.AuthorizationError):
                raise
            except (redis.ConnectionError, redis.TimeoutError) as error:
                self.disconnect()
                failed = error
                target = self._places.search.target
                message = f"{texts([found.asked])} reports {texts([found.place])} as {target}: {_reason(error)}"
            else:
                self._at = found.place
                self._places.mark_used(found)
                return
        raise ElsewhereError(message) from failed

    def check_health(self: Any) -> None:
        """Check that the server is still the right one; redis-py calls this before each command.

        Connections that never return to a pool are checked only here.

        Raises:
            ElsewhereError: this is a former place; the connection is closed.
        """
        if self._is_outdated():
            self._close_elsewhere("")
        super().check_health()  # type: ignore[misc]

    def read_response(self: Any, *arguments: Any, **options: Any) -> Any:
        """Read as redis-py does.

        Raises:
            ElsewhereError: the server answers that the keys are elsewhere; the connection is closed.
        """
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except redis.ResponseError as error:
            if not isinstance(error, _ELSEWHERE) and not str(error).startswith(_ELSEWHERE_CODES):
                raise
            self._close_elsewhere(f" ({type(error).__name__})", error)

    def _is_outdated(self: Any) -> bool:
        """Tell whether the place has changed since this connection was made, by a Sentinel or another connection."""
        if not self._sock or self._at is None:
            return False
        self._places.check()
        return bool(self._at != self._places.last)

    def _close_elsewhere(self: Any, reason: str, error: Exception | None = None) -> None:
        self.disconnect()
        raise ElsewhereError(f"{self.host}:{self.port} is no longer {self._places.search.target}{reason}") from error


class Connection(_FollowsPlaces, redis.Connection):
    """A connection without TLS that asks `Places` for its server."""


class TlsConnection(_FollowsPlaces, redis.SSLConnection):
    """A connection with TLS that asks `Places` for its server."""


# By name. Celery's configuration contains the name, and a worker sends its configuration to any client that asks for
# it: so the name contains no secret.
_remembered: dict[str, tuple[str, str]] = {}


def remember(url: str, source: str) -> str:
    """Return the name by which `remembered` finds the arguments for the connections of a source.

    Raises:
        FatalError: the URL is invalid.
    """
    name = topology.name(url, source) or f"{source} at {redis_url.place(url)}"
    _remembered[name] = url, source
    return name


def remembered(name: str) -> dict[str, Any]:
    """Return the arguments of a pool for a name that `remember` has returned in this process, or before a fork."""
    return pool_options(*_remembered[name])


def pool_options(url: str, source: str) -> dict[str, Any]:
    """Return the arguments with which a pool of redis-py makes the connections of a source, without outhaul's timeouts.

    Raises:
        FatalError: the URL is invalid.
    """
    places = topology.places(url, source)
    return redis_url.server_options(url) if places is None else connection_options(places)


def connection_options(places: Places) -> dict[str, Any]:
    """Return the arguments with which a pool of redis-py makes these connections, without timeouts."""
    address, tls = places.search.address, places.search.tls
    return {
        "connection_class": TlsConnection if tls else Connection,
        "places": places,
        "username": address.username,
        "password": address.password,
        "db": address.database,
        "protocol": _PROTOCOL,
    } | tls


def _check_role(greeting: dict[Any, Any], kind: RedisKind) -> None:
    facts = {str_if_bytes(name): str_if_bytes(value) for name, value in greeting.items()}
    if facts.get("role") != "master":
        raise ElsewhereError(f"it reports the role {facts.get('role', 'none')}")
    if (facts.get("mode") == "cluster") is not (kind is RedisKind.CLUSTER):
        raise ElsewhereError(f"it reports the mode {facts.get('mode', 'none')}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ElsewhereError) else f"it does not answer ({type(error).__name__})"

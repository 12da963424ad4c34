"""Places -> connections of redis-py that ask where to go before they are made, and end when it is the wrong place.

Edge: for our own connections and for kombu's alike. An ordinary connection is enough, as long as it goes to the server
that holds our keys: one that is told that they are elsewhere is closed, and whoever had it connects anew, and asks
again.

Source: https://redis.io/docs/latest/commands/hello/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
from redis.utils import str_if_bytes

from outhaul.sink.redis.discovery import ElsewhereError, texts
from outhaul.sink.redis_url import Kind, Server

if TYPE_CHECKING:
    from outhaul.sink.redis.topology import Places

# What a server answers that is not, or not now, the one to write to: a replica, one that was cut off from its
# replicas or its cluster, one that gave the slot away or is about to.
_ELSEWHERE = (
    redis.ReadOnlyError,
    redis.exceptions.AskError,  # and MovedError
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,  # and MasterDownError
)
_ELSEWHERE_CODES = ("NOREPLICAS", "UNBLOCKED")

# By which a server says at the greeting what it is.
_PROTOCOL = 3


class _There:
    """What such a connection has beside redis-py's."""

    def __init__(self, *, places: Places, stays: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._places = places
        # With one user, who listens to its socket: kombu's event loop. It is closed, and never made anew unasked.
        self._stays = stays
        # Where it is; None until that has proved to be right.
        self._at: Server | None = None

    def connect(self: Any) -> None:
        """Called whenever a pool hands the connection out: one to a former place is made anew, before anything is lost.

        Raises:
            ElsewhereError: nobody says where to go.
            redis.AuthenticationError: a server refuses the login.
        """
        if not self._stays and self._is_behind():
            self.disconnect()
        super().connect()  # type: ignore[misc]

    def connect_check_health(self: Any, *arguments: Any, **options: Any) -> None:
        """Connect to the first place that is named and proves to be it.

        Raises:
            ElsewhereError: none does.
            redis.AuthenticationError: a server refuses the login.
        """
        if self._sock:
            return
        failed: Exception | None = None
        self._at = None
        for found in self._places.look():
            self.host, self.port = found.place
            try:
                super().connect_check_health(*arguments, **options)  # type: ignore[misc]
                _check_role(self.handshake_metadata or {}, self._places.search.address.kind)
            except (redis.AuthenticationError, redis.exceptions.AuthorizationError):
                raise
            except (redis.ConnectionError, redis.TimeoutError) as error:
                self.disconnect()
                failed = error
                named = f"{self._places.search.sought} is {texts([found.place])}, says {texts([found.asked])}"
                said = f"{named}: {_short(error)}"
            else:
                self._at = found.place
                self._places.used(found)
                return
        raise ElsewhereError(said) from failed

    def check_health(self: Any) -> None:
        """Called before each command, also on connections that never come from a pool again.

        Raises:
            ElsewhereError: this is the former place; the connection is closed.
        """
        if self._is_behind():
            self._leave("")
        super().check_health()  # type: ignore[misc]

    def read_response(self: Any, *arguments: Any, **options: Any) -> Any:
        """Read as redis-py does.

        Raises:
            ElsewhereError: the server says that the keys are elsewhere; the connection is closed.
        """
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except redis.ResponseError as error:
            if not isinstance(error, _ELSEWHERE) and not str(error).startswith(_ELSEWHERE_CODES):
                raise
            self._leave(f" ({type(error).__name__})", error)

    def _is_behind(self: Any) -> bool:
        """Tell whether the place has changed since, as Sentinels say, or as another connection has noticed."""
        if not self._sock or self._at is None:
            return False
        self._places.check()
        return bool(self._at != self._places.last)

    def _leave(self: Any, sign: str, error: Exception | None = None) -> None:
        self.disconnect()
        raise ElsewhereError(f"{self.host}:{self.port} is no longer {self._places.search.sought}{sign}") from error


class Connection(_There, redis.Connection):
    """Such a connection without TLS."""


class TlsConnection(_There, redis.SSLConnection):
    """Such a connection with TLS."""


def connection_options(places: Places) -> dict[str, Any]:
    """Return the arguments with which a pool of redis-py makes such connections; without timeouts."""
    address, tls = places.search.address, places.search.tls
    return {
        "connection_class": TlsConnection if tls else Connection,
        "places": places,
        "username": address.username,
        "password": address.password,
        "db": address.database,
        "protocol": _PROTOCOL,
    } | tls


def _check_role(greeting: dict[Any, Any], kind: Kind) -> None:
    said = {str_if_bytes(name): str_if_bytes(value) for name, value in greeting.items()}
    if said.get("role") != "master":
        raise ElsewhereError(f"it says that it is a {said.get('role', 'server of no role')}")
    if (said.get("mode") == "cluster") is not (kind is Kind.CLUSTER):
        raise ElsewhereError(f"it says that its mode is {said.get('mode', 'none')}")


def _short(error: Exception) -> str:
    return str(error) if isinstance(error, ElsewhereError) else f"it does not answer ({type(error).__name__})"

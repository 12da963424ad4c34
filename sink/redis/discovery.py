"""One Sentinel, or one node of a cluster -> the server that it names as the place of the source's keys.

Edge: Redis; a new connection for each question, with a time limit.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
from redis.crc import key_slot
from redis.utils import str_if_bytes

from outhaul.sink import redis_keys
from outhaul.sink.redis_url import RedisAddress, RedisKind, Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Errors of a server that is not a Sentinel, or not a node of a cluster: asking again is useless.
_WRONG_KIND = ("unknown command", "cluster support disabled")


class ElsewhereError(redis.ConnectionError):
    """The keys are on another server than the connection's, or no server says where they are."""


class NoPlaceError(ElsewhereError):
    """No server of the address can know where the keys are: the address names the wrong servers."""


@dataclass(frozen=True, slots=True)
class PlaceAnswer:
    """One server's answer: the place of the keys, or why it names none.

    `others` are more nodes that can be asked. `is_final`: asking again is useless. `is_refusal`: the login is refused.
    """

    asked: Server
    place: Server | None = None
    others: tuple[Server, ...] = ()
    why: str = ""
    error: Exception | None = None
    is_final: bool = False
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """Which keys to find, and how to ask for their place; `tls` has redis-py's TLS arguments, or is empty."""

    address: RedisAddress
    source: str
    tls: dict[str, Any] = field(repr=False)

    @property
    def slot(self) -> int:
        """Slot of the source's keys in a cluster."""
        return key_slot(redis_keys.celery_prefix(self.source).encode())

    @property
    def target(self) -> str:
        """Description of the server to find, for messages."""
        if self.address.kind is RedisKind.SENTINEL:
            return f"the primary of {self.address.master}"
        return f"the node with slot {self.slot}"

    def ask(self, server: Server, *, timeout_s: float) -> PlaceAnswer:
        """Ask one server; it may take `timeout_s` seconds to connect, and as many to answer."""
        try:
            answer = self._command(server, timeout_s)
        except (
            redis.AuthenticationError,
            redis.exceptions.AuthorizationError,
            redis.exceptions.NoPermissionError,
        ) as error:
            return PlaceAnswer(server, why=f"the login is refused, {_bare(error)}", error=error, is_refusal=True)
        except redis.ResponseError as error:
            is_final = any(words in str(error).lower() for words in _WRONG_KIND)
            return PlaceAnswer(server, why=_bare(error), error=error, is_final=is_final)
        except (redis.RedisError, OSError) as error:
            return PlaceAnswer(server, why=f"no answer ({type(error).__name__})", error=error)
        try:
            return self._of_sentinel(server, answer) if self._asks_sentinels() else self._of_node(server, answer)
        except (LookupError, TypeError, ValueError) as error:
            return PlaceAnswer(server, why="no address in its answer", error=error)

    def not_found(self, answers: Sequence[PlaceAnswer], *, asked_all: bool) -> redis.ConnectionError:
        """Return the error for answers of which none names a place.

        Args:
            answers: the answers.
            asked_all: whether all servers have answered; only then can the address be wrong for good.
        """
        whys: dict[str, list[Server]] = {}
        for one in answers:
            whys.setdefault(one.why, []).append(one.asked)
        reasons = "; ".join(f"{texts(servers)}: {why}" for why, servers in whys.items())
        message = f"no server names {self.target}: {reasons}"
        error: redis.ConnectionError
        if any(one.is_refusal for one in answers):
            error = redis.AuthenticationError(message)
        elif asked_all and all(one.is_final for one in answers):
            error = NoPlaceError(message)
        else:
            error = ElsewhereError(message)
        error.__cause__ = next((one.error for one in answers if one.error is not None), None)
        return error

    def _asks_sentinels(self) -> bool:
        return self.address.kind is RedisKind.SENTINEL

    def _command(self, server: Server, timeout_s: float) -> Any:
        named = self.address
        if self._asks_sentinels():
            user, password = named.sentinel_username, named.sentinel_password
            words: tuple[str, ...] = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", named.master)
        else:
            user, password = named.username, named.password
            words = ("CLUSTER", "SLOTS")
        options: dict[str, Any] = {
            "host": server[0],
            "port": server[1],
            "username": user,
            "password": password,
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            # RESP2 needs no HELLO, which saves a round trip.
            "protocol": 2,
        }
        connection: Any = (redis.SSLConnection if self.tls else redis.Connection)(**options, **self.tls)
        try:
            connection.send_command(*words)
            return connection.read_response()
        finally:
            connection.disconnect()

    def _of_sentinel(self, server: Server, answer: Any) -> PlaceAnswer:
        if answer is None:
            return PlaceAnswer(server, why="it knows no primary of this name", is_final=True)
        host, port = answer
        return PlaceAnswer(server, (str_if_bytes(host), int(port)))

    def _of_node(self, server: Server, answer: Any) -> PlaceAnswer:
        place, others = None, []
        for first, last, *nodes in answer:
            found = [_node(node, server) for node in nodes]
            others += found
            if first <= self.slot <= last:
                place = found[0]
        why = "" if place else "it reports that no node has the slot"
        return PlaceAnswer(server, place, tuple(dict.fromkeys(others)), why)


def texts(servers: Iterable[Server | None]) -> str:
    """Return the servers as `host:port, host:port`."""
    return ", ".join(f"{server[0]}:{server[1]}" for server in servers if server)


def _node(node: Any, asked: Server) -> Server:
    host, port = node[:2]
    # A node that does not know its own address sends none: then it is the address that it was asked at.
    return str_if_bytes(host) if host else asked[0], int(port)


def _bare(error: Exception) -> str:
    return str(error).rstrip(".")

"""One Sentinel, or node of a cluster -> where it says that our keys are.

Edge: one connection for each question, of a bounded time.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
from redis.crc import key_slot
from redis.utils import str_if_bytes

from outhaul.sink import redis_keys
from outhaul.sink.redis_url import Kind, RedisAddress, Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What one answers that is no Sentinel, or no node of a cluster, and will not be one tomorrow.
_NO_SUCH = ("unknown command", "cluster support disabled")


class ElsewhereError(redis.ConnectionError):
    """The keys are on another server than the connection's, or nobody says on which."""


class NoPlaceError(ElsewhereError):
    """All servers of the address say that they cannot know where the keys are: it names the wrong ones."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one server says: where the keys are, or why it does not.

    `others` are nodes that can be asked, too; `is_final`: it would say the same tomorrow; `is_refusal`: of our login.
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
    """What is looked for, and how to ask for it; `tls` as redis-py takes it, empty without."""

    address: RedisAddress
    source: str
    tls: dict[str, Any] = field(repr=False)

    @property
    def slot(self) -> int:
        """Slot of the source's keys in a cluster."""
        return key_slot(redis_keys.celery_prefix(self.source).encode())

    @property
    def sought(self) -> str:
        """What is looked for, in words."""
        if self.address.kind is Kind.SENTINEL:
            return f"the primary of {self.address.master}"
        return f"the node with slot {self.slot}"

    def ask(self, server: Server, *, timeout_s: float) -> Answer:
        """Ask one server; connecting and answering may take `timeout_s` seconds each."""
        try:
            answer = self._command(server, timeout_s)
        except (
            redis.AuthenticationError,
            redis.exceptions.AuthorizationError,
            redis.exceptions.NoPermissionError,
        ) as error:
            return Answer(server, why=f"the login is refused, {_bare(error)}", error=error, is_refusal=True)
        except redis.ResponseError as error:
            is_final = any(words in str(error).lower() for words in _NO_SUCH)
            return Answer(server, why=_bare(error), error=error, is_final=is_final)
        except (redis.RedisError, OSError) as error:
            return Answer(server, why=f"no answer ({type(error).__name__})", error=error)
        try:
            return self._of_sentinel(server, answer) if self._asks_sentinels() else self._of_node(server, answer)
        except (LookupError, TypeError, ValueError) as error:
            return Answer(server, why="no address in its answer", error=error)

    def nowhere(self, useless: Sequence[Answer], *, asked_all: bool) -> redis.ConnectionError:
        """Return the error for answers none of which names a place."""
        whys: dict[str, list[Server]] = {}
        for one in useless:
            whys.setdefault(one.why, []).append(one.asked)
        reasons = "; ".join(f"{texts(servers)}: {why}" for why, servers in whys.items())
        said = f"nobody says which is {self.sought}: {reasons}"
        error: redis.ConnectionError
        if any(one.is_refusal for one in useless):
            error = redis.AuthenticationError(said)
        elif asked_all and all(one.is_final for one in useless):
            error = NoPlaceError(said)
        else:
            error = ElsewhereError(said)
        error.__cause__ = next((one.error for one in useless if one.error is not None), None)
        return error

    def _asks_sentinels(self) -> bool:
        return self.address.kind is Kind.SENTINEL

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
            # The older protocol needs no greeting: one trip less.
            "protocol": 2,
        }
        connection: Any = (redis.SSLConnection if self.tls else redis.Connection)(**options, **self.tls)
        try:
            connection.send_command(*words)
            return connection.read_response()
        finally:
            connection.disconnect()

    def _of_sentinel(self, server: Server, answer: Any) -> Answer:
        if answer is None:
            return Answer(server, why="it knows no primary of this name", is_final=True)
        host, port = answer
        return Answer(server, (str_if_bytes(host), int(port)))

    def _of_node(self, server: Server, answer: Any) -> Answer:
        place, others = None, []
        for first, last, *nodes in answer:
            found = [_node(node, server) for node in nodes]
            others += found
            if first <= self.slot <= last:
                place = found[0]
        why = "" if place else "no node has it, says this one"
        return Answer(server, place, tuple(dict.fromkeys(others)), why)


def texts(servers: Iterable[Server | None]) -> str:
    """Return servers as people write them."""
    return ", ".join(f"{server[0]}:{server[1]}" for server in servers if server)


def _node(node: Any, asked: Server) -> Server:
    host, port = node[:2]
    # A node that does not know its own address means: the one by which it was reached.
    return str_if_bytes(host) if host else asked[0], int(port)


def _bare(error: Exception) -> str:
    return str(error).rstrip(".")

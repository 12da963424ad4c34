"""Address with Sentinels or a cluster in it -> a connection to the server that holds our keys now.

Edge: asks the servers of the address before each connection is made, for a bounded time. All keys of a source lie on
one server: with Sentinels on the primary, in a cluster on the node that has the slot of the source's hash tag. So an
ordinary connection is enough, as long as it goes there: one that is told that the keys are elsewhere is closed, and
whoever had it connects anew, and asks again.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
import structlog
from redis.crc import key_slot
from redis.maint_notifications import MaintNotificationsConfig
from redis.utils import str_if_bytes

from sink import keys, redis_url
from sink.redis_url import Address, Kind, Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

log = structlog.get_logger("outhaul.sink")

# For one server to say where the keys are, and for all of them: one that is gone must not hold up those that answer.
_ANSWER_S = 1.0
_LOOK_S = 3.0
# How often the Sentinels are asked whether the primary is still the one that connections are open to, and how long one
# may take: a primary that was cut off and comes back takes what is sent to it until they tell it, ten seconds later.
_CHECK_S, _CHECK_ANSWER_S = 5.0, 0.5

# What a server answers that is not, or not now, the one to write to: a replica, one that was cut off from its
# replicas or its cluster, one that gave the slot away or is about to.
_ELSEWHERE = frozenset({"READONLY", "NOREPLICAS", "UNBLOCKED", "MASTERDOWN", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})
# What one answers that is no Sentinel, or no node of a cluster, and will not be one tomorrow.
_NO_SUCH = ("unknown command", "cluster support disabled")

# RESP3, since a server then says at the greeting what it is; a push of its own about maintenance is nothing to us.
_GREETING = {"protocol": 3, "maint_notifications_config": MaintNotificationsConfig(enabled=False)}


class ElsewhereError(redis.ConnectionError):
    """The keys are on another server than the connection's, or nobody says on which."""


class NoPlaceError(ElsewhereError):
    """All servers of the address say that they cannot know where the keys are: it names the wrong ones."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one server says: where the keys are, or why it does not; `others` are nodes that can be asked, too."""

    asked: Server
    place: Server | None = None
    others: tuple[Server, ...] = ()
    why: str = ""
    error: Exception | None = None
    is_final: bool = False
    is_refusal: bool = False


class Places:
    """The servers of one address, and what is known of them; usable from several threads."""

    def __init__(self, address: Address, source: str, tls: dict[str, Any]) -> None:
        """Keep the address; nothing is asked yet."""
        self.address = address
        self.slot = key_slot(keys.celery_prefix(source).encode())
        self._tls = tls
        # Who is asked first: whoever was right the last time. Only ever replaced whole, so it needs no lock.
        self._order = address.servers
        self.last: Server | None = None
        self._check_at = 0.0

    def are_of(self, address: Address, tls: dict[str, Any]) -> bool:
        """Tell whether this is all that is known of an address."""
        return (self.address, self._tls) == (address, tls)

    @property
    def sought(self) -> str:
        """What is looked for, in words."""
        if self.address.kind is Kind.SENTINEL:
            return f"the primary of {self.address.master}"
        return f"the node with slot {self.slot}"

    def connection_options(self) -> dict[str, Any]:
        """Return the arguments with which redis-py's pool makes connections that go there; without timeouts."""
        named = self.address
        login = {"username": named.username, "password": named.password, "db": named.database}
        return {"connection_class": self.connection_class, "places": self} | login | self._tls | _GREETING

    @property
    def connection_class(self) -> type[redis.Connection]:
        """Class of such connections."""
        return TlsConnection if self._tls else Connection

    def look(self) -> Iterator[Answer]:
        """Ask one server after another; yield each answer that names a place which none before it has named.

        Raises:
            ElsewhereError: nobody named one.
            redis.AuthenticationError: nobody did, and a server refused the login.
        """
        deadline = time.monotonic() + _LOOK_S
        order = self._order
        seen: set[Server] = set()
        useless: list[Answer] = []
        for number, server in enumerate(order):
            if (left := deadline - time.monotonic()) <= 0:
                # The next time those that were not asked come first.
                self._order = (*order[number:], *order[:number])
                break
            found = self.ask(server, timeout_s=min(left, _ANSWER_S))
            if found.place is None:
                useless.append(found)
            elif found.place not in seen:
                seen.add(found.place)
                yield found
        if not seen:
            raise self._nowhere(useless, asked_all=len(useless) == len(order))

    def used(self, found: Answer) -> None:
        """Keep in mind that an answer was right."""
        self._order = tuple(dict.fromkeys((found.asked, *self.address.servers, *found.others)))
        self._check_at = time.monotonic() + _CHECK_S
        self._set_last(found)

    def check(self) -> None:
        """Ask one Sentinel now and then whether `last` still holds; one that does not answer is not the first asked."""
        if self.address.kind is not Kind.SENTINEL or (now := time.monotonic()) < self._check_at:
            return
        self._check_at = now + _CHECK_S
        found = self.ask(self._order[0], timeout_s=_CHECK_ANSWER_S)
        if found.place is None:
            self._order = (*self._order[1:], self._order[0])
        else:
            self._set_last(found)

    def _set_last(self, found: Answer) -> None:
        before, self.last = self.last, found.place
        if before not in {None, found.place}:
            log.warning("redis_moved", server=_text(found.place), before=_text(before), asked=_text(found.asked))

    def survey(self) -> list[Answer]:
        """Ask all servers that the address names; takes a second for each that does not answer."""
        return [self.ask(server, timeout_s=_ANSWER_S) for server in self.address.servers]

    def ask(self, server: Server, *, timeout_s: float) -> Answer:
        """Ask one server where the keys are."""
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
            if self.address.kind is Kind.SENTINEL:
                return self._of_sentinel(server, answer)
            return self._of_node(server, answer)
        except (LookupError, TypeError, ValueError) as error:
            return Answer(server, why="no address in its answer", error=error)

    def _command(self, server: Server, timeout_s: float) -> Any:
        named = self.address
        if named.kind is Kind.SENTINEL:
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
            # Redis' older protocol and no word on the client: one trip less each.
            "protocol": 2,
            "driver_info": None,
        }
        connection: Any = (redis.SSLConnection if self._tls else redis.Connection)(**options, **self._tls)
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

    def _nowhere(self, useless: list[Answer], *, asked_all: bool) -> redis.ConnectionError:
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


def _node(node: Any, asked: Server) -> Server:
    host, port = node[:2]
    # A node that does not know its own address means: the one by which it was reached.
    return str_if_bytes(host) if host else asked[0], int(port)


class _There:
    """A connection of redis-py that asks where to go before it is made, and ends when it is the wrong place.

    Source: https://redis.io/docs/latest/commands/hello/
    """

    def __init__(self, *, places: Places, **options: Any) -> None:
        super().__init__(**options)
        self._places = places
        self._at: Server | None = None

    def connect_check_health(self: Any, check_health: bool = True, retry_socket_connect: bool = True) -> None:
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
                super().connect_check_health(check_health, retry_socket_connect)  # type: ignore[misc]
                _check_role(self.handshake_metadata or {}, self._places.address.kind)
            except (redis.AuthenticationError, redis.exceptions.AuthorizationError):
                raise
            except (redis.ConnectionError, redis.TimeoutError) as error:
                self.disconnect()
                failed = error
                said = f"{self._places.sought} is {_text(found.place)}, says {_text(found.asked)}: {_short(error)}"
            else:
                self._at = found.place
                self._places.used(found)
                return
        raise ElsewhereError(said) from failed

    def check_health(self: Any) -> None:
        """Called before each command: the place may have changed since, and another connection have noticed it.

        Raises:
            ElsewhereError: this is the former place; the connection is closed.
        """
        if self._sock and self._at is not None:
            self._places.check()
            if self._at != self._places.last:
                self.disconnect()
                raise ElsewhereError(f"{_text(self._at)} is no longer {self._places.sought}")
        super().check_health()  # type: ignore[misc]

    def read_response(self: Any, *arguments: Any, **options: Any) -> Any:
        """Read as redis-py does.

        Raises:
            ElsewhereError: the server says that the keys are elsewhere; the connection is closed.
        """
        try:
            return super().read_response(*arguments, **options)  # type: ignore[misc]
        except redis.ResponseError as error:
            code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
            if code not in _ELSEWHERE:
                raise
            self.disconnect()
            raise ElsewhereError(f"{self.host}:{self.port} is no longer {self._places.sought} ({code})") from error


class Connection(_There, redis.Connection):
    """Such a connection without TLS."""


class TlsConnection(_There, redis.SSLConnection):
    """Such a connection with TLS."""


def _check_role(greeting: dict[Any, Any], kind: Kind) -> None:
    said = {str_if_bytes(name): str_if_bytes(value) for name, value in greeting.items()}
    if said.get("role") != "master":
        raise ElsewhereError(f"it says that it is a {said.get('role', 'server of no role')}")
    if (said.get("mode") == "cluster") is not (kind is Kind.CLUSTER):
        raise ElsewhereError(f"it says that its mode is {said.get('mode', 'none')}")


def _short(error: Exception) -> str:
    return str(error) if isinstance(error, ElsewhereError) else f"it does not answer ({type(error).__name__})"


def _bare(error: Exception) -> str:
    return str(error).rstrip(".")


def _text(server: Server | None) -> str:
    return "" if server is None else f"{server[0]}:{server[1]}"


def texts(servers: Iterable[Server]) -> str:
    """Return servers as people write them."""
    return ", ".join(map(_text, servers))


# By what Celery's configuration may say of them, in which nothing is secret: it is told to whoever asks a worker.
_known: dict[str, Places] = {}


def places(url: str, source: str) -> Places | None:
    """Return the places of an address, the same ones for all in this process; None where it names one server.

    Raises:
        FatalError: the address does not hold.
    """
    address = redis_url.address(url)
    if address is None:
        return None
    options = redis_url.client_options(url)
    known = _known.get(name(url, source))
    if known is None or not known.are_of(address, options):
        known = _known[name(url, source)] = Places(address, source, options)
    return known


def name(url: str, source: str) -> str:
    """Return the name by which `named` finds the places of an address."""
    address = redis_url.address(url)
    assert address is not None
    return f"{source} by {address.kind.value} {texts(address.servers)}/{address.database} {address.master}".rstrip()


def named(known_as: str) -> Places:
    """Return places that `places` has made in this process, or in the one that it was forked from."""
    return _known[known_as]

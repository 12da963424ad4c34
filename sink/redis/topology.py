"""Address of Sentinels or of a cluster -> the server that holds the source's keys now.

Edge: Redis. `Places` asks the servers of the address (sink/redis/discovery.py) before each new connection
(sink/redis/connection.py), within a time limit. All keys of a source are on one server: with Sentinels on the primary,
in a cluster on the node that has the slot of the source's hash tag.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from outhaul.sink import redis_url
from outhaul.sink.redis.discovery import PlaceAnswer, Search, texts
from outhaul.sink.redis_url import RedisKind, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger("outhaul.sink")

# Time limits for the answer of one server and of all servers, in seconds: a server that is gone must not delay the
# answers of the others for long.
_ANSWER_S = 1.0
_FIND_S = 3.0
# How often a Sentinel is asked whether the primary is still the server of the open connections, and the time limit for
# its answer, in seconds. A former primary that was cut off and comes back accepts writes until the Sentinels make it a
# replica, ten seconds later.
_CHECK_S, _CHECK_ANSWER_S = 5.0, 0.5


class Places:
    """The servers of one address, and the place that was found last; usable from several threads."""

    def __init__(self, search: Search) -> None:
        """Keep the search; ask no server yet."""
        self.search = search
        # The server that connections go to.
        self.last: Server | None = None
        # The order of asking: the server whose last answer was right comes first. It is only replaced as a whole, so it
        # needs no lock.
        self._order = search.address.servers
        self._check_at = 0.0

    def find(self) -> Iterator[PlaceAnswer]:
        """Ask one server after another; yield each answer with a place that no earlier answer had.

        Raises:
            ElsewhereError: no server named a place.
            redis.AuthenticationError: no server named a place, and one refused the login.
        """
        deadline = time.monotonic() + _FIND_S
        order = self._order
        seen: set[Server] = set()
        without_place: list[PlaceAnswer] = []
        for number, server in enumerate(order):
            if (left := deadline - time.monotonic()) <= 0:
                # The next call begins with the servers that were not asked.
                self._order = (*order[number:], *order[:number])
                break
            found = self.search.ask(server, timeout_s=min(left, _ANSWER_S))
            if found.place is None:
                without_place.append(found)
            elif found.place not in seen:
                seen.add(found.place)
                yield found
        if not seen:
            raise self.search.not_found(without_place, asked_all=len(without_place) == len(order))

    def mark_used(self, found: PlaceAnswer) -> None:
        """Record that an answer was right: a connection to its place works."""
        self._order = tuple(dict.fromkeys((found.asked, *self.search.address.servers, *found.others)))
        self._check_at = time.monotonic() + _CHECK_S
        self._set_last(found)

    def check(self) -> None:
        """Ask one Sentinel every 5 s whether `last` is still the primary; if it does not answer, ask another next time.

        In a cluster, this asks no server: a node that has lost the slot answers commands with an error.
        """
        if self.search.address.kind is not RedisKind.SENTINEL or (now := time.monotonic()) < self._check_at:
            return
        self._check_at = now + _CHECK_S
        found = self.search.ask(self._order[0], timeout_s=_CHECK_ANSWER_S)
        if found.place is None:
            self._order = (*self._order[1:], self._order[0])
        else:
            self._set_last(found)

    def ask_all(self) -> list[PlaceAnswer]:
        """Ask all servers of the address; each server that does not answer costs a second."""
        return [self.search.ask(server, timeout_s=_ANSWER_S) for server in self.search.address.servers]

    def _set_last(self, found: PlaceAnswer) -> None:
        before, self.last = self.last, found.place
        if before not in {None, found.place}:
            log.warning("redis_moved", server=texts([found.place]), before=texts([before]), asked=texts([found.asked]))


_known: dict[str, Places] = {}


def places(url: str, source: str) -> Places | None:
    """Return the `Places` of an address, one object for each address in a process; None if it names one server.

    Raises:
        FatalError: the address is invalid.
    """
    address = redis_url.address(url)
    if address is None:
        return None
    search = Search(address, source, redis_url.client_options(url))
    known = _known.get(name(url, source))
    if known is None or known.search != search:
        known = _known[name(url, source)] = Places(search)
    return known


def name(url: str, source: str) -> str:
    """Return the name of an address, without secrets; empty if it names one server."""
    address = redis_url.address(url)
    if address is None:
        return ""
    return f"{source} by {address.kind.value} {texts(address.servers)}/{address.database} {address.master}".rstrip()

"""Address with Sentinels or a cluster in it -> the server that holds our keys now, as the servers of the address say.

Edge: asks them (sink/redis/discovery.py) before each connection is made (sink/redis/connection.py), for a bounded time.
All keys of a source lie on one server: with Sentinels on the primary, in a cluster on the node that has the slot of
the source's hash tag.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from outhaul.sink import redis_url
from outhaul.sink.redis.discovery import Answer, Search, texts
from outhaul.sink.redis_url import Kind, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger("outhaul.sink")

# For one server to say where the keys are, and for all of them: one that is gone must not hold up those that answer.
_ANSWER_S = 1.0
_LOOK_S = 3.0
# How often a Sentinel is asked whether the primary is still the one that connections are open to, and how long that may
# take: a primary that was cut off and comes back takes what is sent to it until Sentinels tell it, ten seconds later.
_CHECK_S, _CHECK_ANSWER_S = 5.0, 0.5


class Places:
    """The servers of one address, and what is known of them; usable from several threads."""

    def __init__(self, search: Search) -> None:
        """Keep what to look for; nothing is asked yet."""
        self.search = search
        # Where connections go.
        self.last: Server | None = None
        # Who is asked first: whoever was right the last time. Only ever replaced whole, so it needs no lock.
        self._order = search.address.servers
        self._check_at = 0.0

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
            found = self.search.ask(server, timeout_s=min(left, _ANSWER_S))
            if found.place is None:
                useless.append(found)
            elif found.place not in seen:
                seen.add(found.place)
                yield found
        if not seen:
            raise self.search.nowhere(useless, asked_all=len(useless) == len(order))

    def used(self, found: Answer) -> None:
        """Keep in mind that an answer was right."""
        self._order = tuple(dict.fromkeys((found.asked, *self.search.address.servers, *found.others)))
        self._check_at = time.monotonic() + _CHECK_S
        self._set_last(found)

    def check(self) -> None:
        """Ask one Sentinel now and then whether `last` still holds; where it does not answer, the next time another.

        A node of a cluster says by itself that it has lost the slot.
        """
        if self.search.address.kind is not Kind.SENTINEL or (now := time.monotonic()) < self._check_at:
            return
        self._check_at = now + _CHECK_S
        found = self.search.ask(self._order[0], timeout_s=_CHECK_ANSWER_S)
        if found.place is None:
            self._order = (*self._order[1:], self._order[0])
        else:
            self._set_last(found)

    def survey(self) -> list[Answer]:
        """Ask all servers that the address names; takes a second for each that does not answer."""
        return [self.search.ask(server, timeout_s=_ANSWER_S) for server in self.search.address.servers]

    def _set_last(self, found: Answer) -> None:
        before, self.last = self.last, found.place
        if before not in {None, found.place}:
            log.warning("redis_moved", server=texts([found.place]), before=texts([before]), asked=texts([found.asked]))


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
    search = Search(address, source, redis_url.client_options(url))
    known = _known.get(name(url, source))
    if known is None or known.search != search:
        known = _known[name(url, source)] = Places(search)
    return known


def name(url: str, source: str) -> str:
    """Return the name by which `named` finds the places of an address; empty where it names one server."""
    address = redis_url.address(url)
    if address is None:
        return ""
    return f"{source} by {address.kind.value} {texts(address.servers)}/{address.database} {address.master}".rstrip()


def named(known_as: str) -> Places:
    """Return places that `places` has made in this process, or in the one that it was forked from."""
    return _known[known_as]

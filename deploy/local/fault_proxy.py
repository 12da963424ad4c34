"""A server's port -> a TCP proxy that can refuse, cut, hold and slow all connections, or act on single ones.

Edge: sockets. An asyncio loop runs in a thread of its own; you may call every method from any thread, and it takes
effect at once. A cut sends RST, as a machine does that has lost the state of the connection. A trap acts on a single
connection whose data matches a pattern.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_PIECE_BYTES = 1 << 16
_TAIL_BYTES = 256
_LOOK_S = 0.005
_END_S = 5.0


class Act(Enum):
    """What the proxy does to a connection that a trap has caught."""

    CUT_REQUEST = auto()  # pass `after` more bytes of the request, then reset both sides
    LOSE_ANSWER = auto()  # pass the request and `after` bytes of its answer, then reset both sides
    HOLD_REQUEST = auto()  # hold the request until the proxy is healed
    HOLD_ANSWER = auto()  # pass the request, hold its answer until the proxy is healed
    DEAFEN = auto()  # discard everything that the client sends afterwards


@dataclass
class Trap:
    """Catches the next `times` connections whose client sends data like `asks`, or whose server sends `answers`.

    Both are regular expressions; an empty one never matches. The first `skip` connections that match pass. `met` is set
    when a connection is caught.
    """

    act: Act
    asks: bytes = b""
    answers: bytes = b""
    after: int = 0
    times: int = 1
    skip: int = 0
    caught: int = 0
    met: threading.Event = field(default_factory=threading.Event)

    def catch(self) -> bool:
        """Count one more connection, and return True; return False if it is to pass."""
        if self.skip:
            self.skip -= 1
            return False
        if self.caught >= self.times:
            return False
        self.caught += 1
        self.met.set()
        return True

    def wait(self, within_s: float = 30.0) -> None:
        """Wait until a connection is caught."""
        assert self.met.wait(within_s), f"no connection was caught within {within_s:g} s: {self}"


# "up" is from client to server, "down" from server to client.
_HELD = {("up", Act.HOLD_REQUEST), ("down", Act.HOLD_ANSWER)}

T = TypeVar("T")


class _Connection:
    """A client's connection, the proxy's connection to the server, and the trap that caught it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.trap: Trap | None = None
        # How many bytes still pass before the trap's act.
        self.bytes_left = 0
        # The last bytes of each direction, since a pattern may begin in one piece and end in the next.
        self.tail = {"up": b"", "down": b""}

    def set_trap(self, trap: Trap) -> None:
        self.trap, self.bytes_left = trap, trap.after

    def cut(self) -> None:
        for writer in (self.client, self.server):
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Listens on `port` and forwards each connection to the server's port `target`."""

    def __init__(self, target: int, *, target_host: str = "127.0.0.1", host: str = "127.0.0.1", port: int = 0) -> None:
        """Start listening.

        Args:
            target: port of the server.
            target_host: address of the server.
            host: address to listen on.
            port: port to listen on; 0 chooses a free one.
        """
        self.target = target
        self.target_host = target_host
        self.host = host
        self.port = port
        self.delay_s = 0.0
        self.held = False
        self.traps: list[Trap] = []
        self.counts: dict[bytes, int] = {}
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._run(self._listen())

    def refuse(self) -> None:
        """Reset all connections and refuse new ones, until healed."""
        self._run(self._refuse())

    def cut(self) -> None:
        """Reset all connections once; new connections pass."""
        self._run(self._cut())

    def hold(self) -> None:
        """Pass no data on old and new connections, until healed; the connections stay open."""
        self.held = True

    def slow(self, delay_s: float) -> None:
        """Delay each piece of data by `delay_s` seconds, until healed."""
        self.delay_s = delay_s

    def catch(self, trap: Trap) -> Trap:
        """Add a trap; it is active until it has caught `times` connections, or the proxy is healed."""
        self.traps.append(trap)
        return trap

    def count(self, words: bytes) -> None:
        """Count in `counts` how often clients send these bytes from now on."""
        self.counts[words] = 0

    def heal(self) -> None:
        """Pass all data again and remove all traps; a connection with discarded bytes keeps discarding them."""
        self.traps = []
        self.held, self.delay_s = False, 0.0
        self._run(self._heal())

    def close(self) -> None:
        """Reset all connections, stop listening and end the thread."""
        self.held = False
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _end(self) -> None:
        await self._heal()
        await self._refuse()
        # Let the tasks end on their cut connections. A loop that is stopped earlier would log each of them.
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(left, timeout=_END_S)

    async def _cut(self) -> None:
        for connection in tuple(self._connections):
            connection.cut()

    async def _heal(self) -> None:
        for connection in self._connections:
            if connection.trap is not None and connection.trap.act in {Act.HOLD_REQUEST, Act.HOLD_ANSWER}:
                connection.trap = None
        await self._listen()

    async def _serve(self, client_in: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            server_in, server = await asyncio.open_connection(self.target_host, self.target)
        except OSError:
            _Connection(client, client).cut()
            return
        connection = _Connection(client, server)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._pump(connection, client_in, server, "up"), self._pump(connection, server_in, client, "down")
            )
        finally:
            self._connections.discard(connection)

    async def _pump(
        self, connection: _Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_PIECE_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                self._match(connection, data, way)
                await self._wait_while_held(connection, way)
                passing, must_cut = self._passing(connection, data, way)
                if passing:
                    sink.write(passing)
                    await sink.drain()
                if must_cut:
                    connection.cut()
                    return
        await self._wait_while_held(connection, way)
        with contextlib.suppress(OSError):
            sink.close()

    def _match(self, connection: _Connection, data: bytes, way: str) -> None:
        """Update the counts, and let a trap catch the connection if its pattern matches."""
        text = connection.tail[way] + data
        old = len(connection.tail[way])
        connection.tail[way] = text[-_TAIL_BYTES:]
        if way == "up":
            for words in self.counts:
                self.counts[words] += text[max(0, old - len(words) + 1) :].count(words)
        if connection.trap is not None:
            return
        for trap in self.traps:
            pattern = trap.asks if way == "up" else trap.answers
            # A match that ends in the old bytes was seen with the piece before.
            found = any(found.end() > old for found in re.finditer(pattern, text, re.DOTALL)) if pattern else False
            if found and trap.catch():
                connection.set_trap(trap)
                # The piece that matched still passes; the discarding begins after it.
                connection.bytes_left = len(data) if trap.act is Act.DEAFEN else connection.bytes_left
                return

    async def _wait_while_held(self, connection: _Connection, way: str) -> None:
        # Other threads change these attributes, so the loop polls them.
        while self.held or (connection.trap and (way, connection.trap.act) in _HELD):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)

    def _passing(self, connection: _Connection, data: bytes, way: str) -> tuple[bytes, bool]:
        """Return the bytes that pass, and whether the connection must be cut after them."""
        act = connection.trap.act if connection.trap else None
        match way, act:
            case ("up", Act.CUT_REQUEST) | ("down", Act.LOSE_ANSWER):
                passing = data[: connection.bytes_left]
                connection.bytes_left -= len(passing)
                return passing, len(passing) < len(data) or not connection.bytes_left
            case ("up", Act.DEAFEN):
                passing = data[: connection.bytes_left]
                connection.bytes_left -= len(passing)
                return passing, False
        return data, False

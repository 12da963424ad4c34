"""TCP proxy whose connections can be refused, cut, held, slowed and made deaf, all at once or one by one.

A loop in a thread of its own; every method may be called from any thread and takes effect at once. Cut means RST, as
from a machine that forgot the connection. Traps catch single connections by what is said on them.
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
    """What happens to a connection that a trap has caught."""

    CUT_REQUEST = auto()  # `after` bytes of the request pass, then both sides are reset
    LOSE_ANSWER = auto()  # the request passes; at its answer, of which `after` bytes pass, the client is reset
    HOLD_REQUEST = auto()  # the request waits until the proxy is healed
    HOLD_ANSWER = auto()  # the request passes, its answer waits
    DEAFEN = auto()  # what the client says from then on is dropped


@dataclass
class Trap:
    """Catches the next `times` connections on which the client says `asks`, or the server `answers`: both patterns."""

    act: Act
    asks: bytes = b""
    answers: bytes = b""
    after: int = 0
    times: int = 1
    caught: int = 0
    met: threading.Event = field(default_factory=threading.Event)

    def catch(self) -> bool:
        """Take one more connection, if any is left to take."""
        if self.caught >= self.times:
            return False
        self.caught += 1
        self.met.set()
        return True

    def wait(self, within_s: float = 30.0) -> None:
        """Wait until a connection is caught."""
        assert self.met.wait(within_s), f"nobody came by: {self}"


_WAITING = {("up", Act.HOLD_REQUEST), ("down", Act.HOLD_ANSWER)}

T = TypeVar("T")


class _Connection:
    """A client, its way to the server, and the trap it sits in."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.trap: Trap | None = None
        self.budget = 0
        self.tail = {"up": b"", "down": b""}

    def sit(self, trap: Trap) -> None:
        self.trap, self.budget = trap, trap.after

    def cut(self) -> None:
        for writer in (self.client, self.server):
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Listens on `port` and passes everything on to `target`, a port of this machine, until told otherwise."""

    def __init__(self, target: int, *, of: str = "127.0.0.1", host: str = "127.0.0.1", port: int = 0) -> None:
        """Start listening.

        Args:
            target: port of the server.
            of: the machine that it is on, if it is another one.
            host: address to listen on.
            port: port to listen on; 0 is any that is free.
        """
        self.target = target
        self.of = of
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
        """Reset all connections; new ones are welcome."""
        self._run(self._cut())

    def hold(self) -> None:
        """Let nothing through, on old and new connections, until healed; nobody is told."""
        self.held = True

    def slow(self, delay_s: float) -> None:
        """Let everything wait, piece by piece, until healed."""
        self.delay_s = delay_s

    def catch(self, trap: Trap) -> Trap:
        """Lay a trap; it stays until it has caught enough, or the proxy is healed."""
        self.traps.append(trap)
        return trap

    def count(self, words: bytes) -> None:
        """Count from now on how often clients say this."""
        self.counts[words] = 0

    def heal(self) -> None:
        """Let everything through again; connections whose bytes were dropped stay as they are."""
        self.traps = []
        self.held, self.delay_s = False, 0.0
        self._run(self._heal())

    def close(self) -> None:
        """End the thread."""
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
        # What is still on its way finds its connections cut; a loop that stops before would say so.
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
            server_in, server = await asyncio.open_connection(self.of, self.target)
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
                self._notice(connection, data, way)
                await self._turn(connection, way)
                passing, over = self._passing(connection, data, way)
                if passing:
                    sink.write(passing)
                    await sink.drain()
                if over:
                    connection.cut()
                    return
        await self._turn(connection, way)
        with contextlib.suppress(OSError):
            sink.close()

    def _notice(self, connection: _Connection, data: bytes, way: str) -> None:
        said = connection.tail[way] + data
        fresh = len(connection.tail[way])
        connection.tail[way] = said[-_TAIL_BYTES:]
        if way == "up":
            for words in self.counts:
                self.counts[words] += said[max(0, fresh - len(words) + 1) :].count(words)
        if connection.trap is not None:
            return
        for trap in self.traps:
            pattern = trap.asks if way == "up" else trap.answers
            # What was there before this piece has been looked at already.
            found = any(found.end() > fresh for found in re.finditer(pattern, said, re.DOTALL)) if pattern else False
            if found and trap.catch():
                connection.sit(trap)
                # Deafness begins behind what was caught.
                connection.budget = len(data) if trap.act is Act.DEAFEN else connection.budget
                return

    async def _turn(self, connection: _Connection, way: str) -> None:
        # What is waited for is set by other threads.
        while self.held or (connection.trap and (way, connection.trap.act) in _WAITING):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)

    def _passing(self, connection: _Connection, data: bytes, way: str) -> tuple[bytes, bool]:
        act = connection.trap.act if connection.trap else None
        match way, act:
            case ("up", Act.CUT_REQUEST) | ("down", Act.LOSE_ANSWER):
                passing = data[: connection.budget]
                connection.budget -= len(passing)
                return passing, len(passing) < len(data) or not connection.budget
            case ("up", Act.DEAFEN):
                passing = data[: connection.budget]
                connection.budget -= len(passing)
                return passing, False
        return data, False

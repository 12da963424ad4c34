"""A CA, certificates in every state, and a door with TLS before a server that has none."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Papers:
    """Two CAs of which one is ours, and what ours signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ours, theirs = trustme.CA(), trustme.CA()
        self.ca, self.wrong_ca = folder / "ca.pem", folder / "wrong_ca.pem"
        self._ours.cert_pem.write_to_path(str(self.ca))
        theirs.cert_pem.write_to_path(str(self.wrong_ca))
        self.server = self._issue("server", HOST)
        self.expired = self._issue("expired", HOST, days=-1)
        self.elsewhere = self._issue("elsewhere", "elsewhere.example.org")
        self.client = self._issue("client", "reader@example.org")
        self.by_certificate = self._issue("by_certificate", "reader@example.org", common_name="by_certificate")

    def _issue(self, name: str, identity: str, *, common_name: str | None = None, days: int = 30) -> Pair:
        end = datetime.now(UTC) + timedelta(days=days)
        leaf = self._ours.issue_cert(
            identity, common_name=common_name, not_before=end - timedelta(days=60), not_after=end
        )
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        for blob in leaf.cert_chain_pems:
            blob.write_to_path(str(pair.certificate), append=True)
        leaf.private_key_pem.write_to_path(str(pair.key))
        pair.key.chmod(0o600)
        return pair


class Door:
    """Takes TLS connections and passes on what they carry; `asks` lets in none without a certificate of this CA."""

    def __init__(self, to: tuple[str, int], pair: Pair, asks: Path | None = None) -> None:
        self._to = to
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pair.certificate, pair.key)
        if asks is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(asks)
        self._loop = asyncio.new_event_loop()
        # Failed handshakes are what some tests are about.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._tasks: set[asyncio.Task[None]] = set()
        self.taken = 0
        self.port = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[Door]:
        """Serve from a thread of its own during the block."""
        ready = threading.Event()
        over = asyncio.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._pass_on, HOST, 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await over.wait()
            server.close()
            await asyncio.sleep(0.01)  # what was taken last begins, so that it can end
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0.01)  # what was aborted is closed in the loop's next turns

        thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(over.set)
            thread.join(10)
            self._loop.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ways: list[asyncio.Task[None]] = []
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                # Here and not by the server, so that a handshake under way ends with its task.
                await writer.start_tls(self._context)
                self.taken += 1
                behind = await asyncio.open_connection(*self._to)
                ways = [asyncio.create_task(_pump(reader, behind[1])), asyncio.create_task(_pump(behind[0], writer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    behind[1].transport.abort()
        finally:
            writer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._tasks.discard(task)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.CancelledError):
        while piece := await source.read(1 << 16):
            target.write(piece)
            await target.drain()

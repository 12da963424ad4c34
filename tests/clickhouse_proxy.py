"""An HTTP proxy before ClickHouse that changes the parameters of the URL, or answers by itself; for tests only."""

from __future__ import annotations

import base64
import http.client
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Pairs = list[tuple[str, str]]


@dataclass
class Rules:
    """What the proxy does with a request; `seen` has the target and the size of the body of each.

    `refuse` returns the status of an answer of the proxy's own, whose text is `page`. With a `login`, `user:password`,
    it refuses all others as ClickHouse does, and logs in to the server by itself.
    """

    change: Callable[[Pairs], Pairs] = lambda pairs: pairs
    refuse: Callable[[str, int], int | None] = lambda _target, _size: None
    page: bytes = b"<html>refused</html>"
    login: str = ""
    seen: list[tuple[str, int]] = field(default_factory=list)


def _basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


@contextmanager
def proxy_before(url: str, rules: Rules) -> Iterator[str]:
    """Run the proxy during the block; yield the URL that leads through it."""
    parts = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            rules.seen.append((self.path, len(body)))
            if status := rules.refuse(self.path, len(body)):
                self._answer(status, {"Content-Type": "text/html"}, rules.page)
                return
            if rules.login and self.headers.get("Authorization") != _basic(rules.login):
                self._answer(403, {"X-ClickHouse-Exception-Code": "516"}, b"Code: 516. DB::Exception: wrong password")
                return
            target = urlsplit(self.path)
            query = urlencode(rules.change(parse_qsl(target.query, keep_blank_values=True)))
            with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)) as onward:
                kept = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
                if rules.login:
                    kept["Authorization"] = _basic(f"{parts.username}:{parts.password}")
                onward.request(self.command, f"{target.path}?{query}", body, kept)
                response = onward.getresponse()
                text = response.read()
            hop = {"transfer-encoding", "content-length", "connection"}
            self._answer(response.status, {k: v for k, v in response.getheaders() if k.lower() not in hop}, text)

        do_GET = do_POST  # noqa: N815 - http.server's name

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        login, _, _ = parts.netloc.rpartition("@")
        try:
            yield parts._replace(netloc=f"{login}@127.0.0.1:{server.server_port}").geturl()
        finally:
            server.shutdown()

"""Envelopes that the SDK posts -> what is in them: a Sentry of thirty lines, on a port of its own.

Edge: http.server. It takes `POST /api/1/envelope/`, compressed or not, and keeps the bytes as they were before that.

Source: https://develop.sentry.dev/sdk/data-model/envelopes/
"""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Listener:
    """Listens until it is closed; `sent` has each envelope's bytes."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        sent = self.sent

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_gzip = self.headers.get("Content-Encoding") == "gzip"
                sent.append(gzip.decompress(body) if is_gzip else body)
                self.send_response(200 if self.path == "/api/1/envelope/" else 404)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self._server.server_address[1]}/1"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Return all events (`event`) or transactions (`transaction`) so far."""
        found = []
        for envelope in list(self.sent):
            lines = envelope.split(b"\n")
            # After the envelope's own header: a header and a line of JSON each.
            for header, body in zip(lines[1::2], lines[2::2], strict=False):
                if json.loads(header)["type"] == kind:
                    found.append(json.loads(body))
        return found

    def tags(self) -> list[dict[str, str]]:
        """Return the tags of all events, with their level."""
        return [event["tags"] | {"level": event["level"]} for event in self.items("event")]

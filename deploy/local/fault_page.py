"""Addresses of servers -> a proxy in front of each, and a page with buttons that break and restore the links.

Edge, and a process of its own: `python -m outhaul.deploy.local.fault_page redis:6379 postgres:5432`. Each proxy
listens on the port of its server. The page has no login: do not expose it to other machines.
"""

from __future__ import annotations

import argparse
import html
import signal
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from outhaul.deploy.local.fault_proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SLOW_S = 1.0
_FAULTS: dict[str, tuple[str, Callable[[Proxy], None]]] = {
    "refuse": ("all connections are reset, new ones refused", Proxy.refuse),
    "cut": ("all connections are reset once", Proxy.cut),
    "hold": ("connections stay open, but no data passes", Proxy.hold),
    "slow": (f"each piece of data is delayed by {_SLOW_S:g} s", lambda proxy: proxy.slow(_SLOW_S)),
    "heal": ("no fault", Proxy.heal),
}


class Page(ThreadingHTTPServer):
    """GET / shows the links, with a button for each fault; POST /redis/cut applies a fault to a link."""

    daemon_threads = True

    def __init__(self, host: str, port: int, proxies: Mapping[str, Proxy]) -> None:
        """Start listening."""
        self.proxies = proxies
        self.states = dict.fromkeys(proxies, "heal")
        super().__init__((host, port), _Handler)

    def inflict(self, path: str) -> bool:
        """Apply the fault that a path such as /redis/cut names; return whether the path is valid."""
        name, _, fault = path.strip("/").partition("/")
        if name not in self.proxies or fault not in _FAULTS:
            return False
        _FAULTS[fault][1](self.proxies[name])
        # A cut resets the connections once. New connections pass, so the link has no fault afterwards.
        self.states[name] = "heal" if fault == "cut" else fault
        return True

    def text(self) -> str:
        """Return the page as HTML."""
        rows = (
            f"<tr><th>{html.escape(name)}<td>{_FAULTS[self.states[name]][0]}<td>"
            + " ".join(
                f'<button title="{description}" formaction="/{html.escape(name)}/{fault}">{fault}</button>'
                for fault, (description, _) in _FAULTS.items()
            )
            for name in self.proxies
        )
        return (
            "<!doctype html><meta charset=utf-8><title>Faults</title>"
            "<style>body{font:16px sans-serif;margin:2em}td,th{padding:.5em;text-align:left}</style>"
            f"<h1>Links</h1><form method=post><table>{''.join(rows)}</table></form>"
        )


class _Handler(BaseHTTPRequestHandler):
    server: Page
    timeout = 10

    def do_GET(self) -> None:
        if self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = self.server.text().encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        if not self.server.inflict(self.path):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.end_headers()


def main() -> None:
    """Run the proxies and the page until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="faults")
    parser.add_argument("servers", nargs="+", metavar="name:port")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on: 0.0.0.0 in a container")
    parser.add_argument("--page", type=int, default=8666, help="port of the page")
    options = parser.parse_args()
    proxies = {}
    for server in options.servers:
        name, _, port = server.rpartition(":")
        proxies[name] = Proxy(int(port), target_host=name, host=options.host, port=int(port))
    page = Page(options.host, options.page, proxies)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=page.serve_forever, daemon=True).start()
    stop.wait()
    page.shutdown()
    for proxy in proxies.values():
        proxy.close()


if __name__ == "__main__":
    main()

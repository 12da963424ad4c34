"""Pieces of a result -> HTTP response: whole with its length where it is short or was asked for whole, else as it
comes.

Edge: writes to a client's socket. A result that fails before it was sent becomes a proper error; one that fails on
its way ends in ClickHouse's exception block and a broken chunked body, so that no client takes a cut result for a
whole one.

Source: https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from outhaul.deploy.local.front.engine import EngineError
from outhaul.deploy.local.front.request_body import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler

# As much as a server holds back before the status line is out.
_HELD_BACK_BYTES = 1 << 20


def send(
    handler: BaseHTTPRequestHandler,
    parts: Iterator[bytes],
    headers: Callable[[], dict[str, str]],
    *,
    hold_all: bool,
) -> None:
    """Answer 200 with these pieces.

    Args:
        handler: the request's.
        parts: the body, content coding applied.
        headers: asked for just before the status line goes out.
        hold_all: send nothing before the last piece is there.

    Raises:
        EngineError: the query failed, and nothing has been sent yet.
        OSError: the client went away.
    """
    held, held_bytes = [], 0
    for part in parts:
        held.append(part)
        held_bytes += len(part)
        if held_bytes > _HELD_BACK_BYTES:
            break
    else:
        whole(handler, 200, headers(), b"".join(held))
        return
    if hold_all:
        with Spool() as spool:
            for part in (*held, *parts):
                spool.write(part)
            held.clear()
            _head(handler, 200, {**headers(), "Content-Length": str(spool.bytes)})
            for part in spool.read():
                handler.wfile.write(part)
        return
    _chunked(handler, held, parts, headers())


def whole(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    """Send a response in one write."""
    _head(handler, status, {**headers, "Content-Length": str(len(body))})
    if handler.command != "HEAD":
        handler.wfile.write(body)
    handler.wfile.flush()


def _head(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    if handler.close_connection:
        handler.send_header("Connection", "close")
    handler.end_headers()


def _chunked(
    handler: BaseHTTPRequestHandler, held: list[bytes], parts: Iterator[bytes], headers: dict[str, str]
) -> None:
    tag = secrets.token_hex(8)
    _head(handler, 200, {**headers, "Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag})
    try:
        for part in held:
            _chunk(handler, part)
        held.clear()
        for part in parts:
            _chunk(handler, part)
    except EngineError as error:
        text = error.failure.text.encode()
        block = b"\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n" % (
            tag.encode(),
            text,
            len(text) + 1,
            tag.encode(),
        )
        _chunk(handler, block)
        # Without the last, empty chunk the body is visibly cut.
        handler.close_connection = True
    else:
        handler.wfile.write(b"0\r\n\r\n")
    handler.wfile.flush()


def _chunk(handler: BaseHTTPRequestHandler, part: bytes) -> None:
    if part:
        handler.wfile.write(b"%x\r\n" % len(part))
        handler.wfile.write(part)
        handler.wfile.write(b"\r\n")

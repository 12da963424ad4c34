"""Pieces of a result -> an HTTP response, with Content-Length if the result is short or held back, else in chunks.

Edge: writes to a client's socket. If a result fails before its first byte is sent, the caller sends an error response.
If it fails later, the response ends with ClickHouse's exception block and without the last chunk. So a client does not
take an incomplete result for a complete one.

Source: https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from outhaul.deploy.local.clickhouse_http.engine import EngineError
from outhaul.deploy.local.clickhouse_http.request_body import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.server import BaseHTTPRequestHandler

# A ClickHouse server also buffers this much before it sends the status line.
_HELD_BACK_BYTES = 1 << 20


def send(
    handler: BaseHTTPRequestHandler,
    parts: Iterator[bytes],
    headers: Callable[[], dict[str, str]],
    *,
    hold_all: bool,
) -> None:
    """Send a response with status 200 and these pieces as its body.

    Args:
        handler: the handler of the request.
        parts: the body, after content coding.
        headers: called just before the status line is sent.
        hold_all: send nothing before the last piece is complete.

    Raises:
        EngineError: the query failed, and nothing was sent.
        OSError: the client closed the connection.
    """
    held, held_bytes = [], 0
    for part in parts:
        held.append(part)
        held_bytes += len(part)
        if held_bytes > _HELD_BACK_BYTES:
            break
    else:
        send_whole(handler, 200, headers(), b"".join(held))
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


def send_whole(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    """Send a response with Content-Length."""
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
        # The last, empty chunk is missing, so the client sees that the body is incomplete.
        handler.close_connection = True
    else:
        handler.wfile.write(b"0\r\n\r\n")
    handler.wfile.flush()


def _chunk(handler: BaseHTTPRequestHandler, part: bytes) -> None:
    if part:
        handler.wfile.write(b"%x\r\n" % len(part))
        handler.wfile.write(part)
        handler.wfile.write(b"\r\n")

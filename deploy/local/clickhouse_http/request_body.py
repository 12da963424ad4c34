"""Request body on a socket -> its decoded pieces, and a file that holds them for the engine.

Edge: the only file that reads a client's socket. A body that ends early raises, so its statement is never executed. The
file has no name, so the system deletes it when it is closed or the process ends. It is in memory up to 64 MiB, then on
disk.

Source: RFC 9112, sections 6 and 7
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Self

from outhaul.deploy.local.clickhouse_http.content_codings import decoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedIOBase

_PIECE = 1 << 20
_IN_MEMORY_BYTES = 64 << 20
_LONGEST_LINE = 8192


class TruncatedBodyError(Exception):
    """The client closed the connection, or its side of it, before the end of the body."""


class BodyError(Exception):
    """The body's framing is not valid HTTP."""


def pieces(stream: BufferedIOBase, headers: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the decoded body in pieces.

    Raises:
        TruncatedBodyError: the body ended early.
        BodyError: the framing is invalid.
        CodingError: the content coding is unknown, or the compressed data is invalid.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if "chunked" in headers.get("transfer-encoding", "").lower():
        raw = _chunks(stream)
    else:
        raw = _counted(stream, _length(headers))
    return raw if coding in {"", "identity"} else decoded(raw, coding)


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0").strip()
    if not (text.isascii() and text.isdigit()):
        raise BodyError(f"Bad Content-Length '{text}'")
    return int(text)


def _counted(stream: BufferedIOBase, left: int) -> Iterator[bytes]:
    while left:
        piece = stream.read1(min(left, _PIECE))
        if not piece:
            raise TruncatedBodyError
        left -= len(piece)
        yield piece


def _chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    while size := _chunk_size(_line(stream)):
        yield from _counted(stream, size)
        if _line(stream):
            raise BodyError("Bad chunk end")
    while _line(stream):
        pass


def _line(stream: BufferedIOBase) -> bytes:
    line = stream.readline(_LONGEST_LINE)
    if not line.endswith(b"\n"):
        raise TruncatedBodyError
    return line.rstrip(b"\r\n")


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise BodyError("Bad chunk size") from None


class Spool:
    """A file without a name, which the engine reads at `path`."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("outhaul-body", os.MFD_CLOEXEC)
        self._on_disk = False
        self.bytes = 0

    @property
    def path(self) -> str:
        """Its path, valid in this process only."""
        return f"/proc/self/fd/{self._fd}"

    def write(self, piece: bytes | memoryview) -> None:
        """Append a piece. Above 64 MiB the file moves from memory to disk, into the working directory."""
        if not self._on_disk and self.bytes + len(piece) > _IN_MEMORY_BYTES:
            self._move_to_disk()
        view = memoryview(piece)
        while view:
            view = view[os.write(self._fd, view) :]
        self.bytes += len(piece)

    def read(self) -> Iterator[bytes]:
        """Yield the content in pieces."""
        at = 0
        while piece := os.pread(self._fd, _PIECE, at):
            yield piece
            at += len(piece)

    def close(self) -> None:
        """Close and delete the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _move_to_disk(self) -> None:
        with tempfile.TemporaryFile(dir=".") as file:
            fd = os.dup(file.fileno())
        at = 0
        while sent := os.sendfile(fd, self._fd, at, _IN_MEMORY_BYTES):
            at += sent
        os.close(self._fd)
        self._fd, self._on_disk = fd, True

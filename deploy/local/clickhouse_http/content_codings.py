"""Encoded pieces of a body -> plain pieces and back, in the content codings that ClickHouse supports over HTTP.

Pure.

Source: https://clickhouse.com/docs/interfaces/http#compression
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Protocol

import lz4.frame  # type: ignore[import-untyped]

try:
    from compression import zstd  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GZIP = zlib.MAX_WBITS | 16


class CodingError(Exception):
    """The data is not in the named coding, or the coding is unknown."""


class _Decoder(Protocol):
    unused_data: bytes

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Zlib:
    """zlib's decompressor with the interface of `_Decoder`; it decodes gzip, and deflate with a zlib header."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 32)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, /) -> bytes:
        return self._inner.decompress(data)


_DECODERS: dict[str, Any] = {
    "gzip": _Zlib,
    "x-gzip": _Zlib,
    "deflate": _Zlib,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
}


def decoded(raw: Iterator[bytes], coding: str) -> Iterator[bytes]:
    """Yield the plain pieces of an encoded body.

    Raises:
        CodingError: the coding is unknown, the data is invalid, or it ends inside a frame.
    """
    if coding not in _DECODERS:
        raise CodingError(f"Unknown compression method {coding}")
    decoder: _Decoder = _DECODERS[coding]()
    begun = False
    for piece in raw:
        left = piece
        while left:
            # A body may hold several frames.
            if decoder.eof:
                decoder = _DECODERS[coding]()
            begun = True
            try:
                plain = decoder.decompress(left)
            except (RuntimeError, zlib.error, zstd.ZstdError, EOFError) as error:
                raise CodingError(f"Cannot decompress the body as {coding}: {error}") from error
            if plain:
                yield plain
            left = (decoder.unused_data or b"") if decoder.eof else b""
    if begun and not decoder.eof:
        raise CodingError(f"The body ends inside its {coding} frame")


class _Lz4:
    def __init__(self) -> None:
        self._inner = lz4.frame.LZ4FrameCompressor()
        self._head: bytes = self._inner.begin()

    def compress(self, piece: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._inner.compress(piece))

    def flush(self) -> bytes:
        return self._head + bytes(self._inner.flush())


_COMPRESSORS: dict[str, Callable[[], Any]] = {
    "lz4": _Lz4,
    "zstd": lambda: zstd.ZstdCompressor(level=1),
    "gzip": lambda: zlib.compressobj(3, zlib.DEFLATED, _GZIP),
    "deflate": lambda: zlib.compressobj(3),
}


def compressed(parts: Iterator[bytes], method: str | None) -> Iterator[bytes]:
    """Yield the pieces in a content coding; None leaves them plain. An empty body becomes an empty frame."""
    if method is None:
        yield from parts
        return
    compressor = _COMPRESSORS[method]()
    for part in parts:
        if packed := compressor.compress(part):
            yield packed
    yield compressor.flush()

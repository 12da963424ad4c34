"""An array in Postgres' binary form -> its elements, checked; elements -> the text that Postgres prints.

Pure. Of any number of dimensions, as Postgres has no type of array with only one.

Source: `array_send` and `array_out` in https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from outhaul.sink.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HEADER = struct.Struct(">iiI")
_DIMENSION = struct.Struct(">ii")
_LENGTH = struct.Struct(">i")
_MAX_DIMENSIONS = 6
_NULL = -1
_QUOTED = frozenset(b'"\\{},\t\n\v\f\r ')


@dataclass(frozen=True, slots=True)
class Elements:
    """An array: (size, lower bound) of each dimension, and (start, length) of each element, None for NULL."""

    dimensions: tuple[tuple[int, int], ...]
    spans: tuple[tuple[int, int] | None, ...]


def parse(raw: bytes, element_oid: int) -> Elements:
    """Find the elements of an array.

    Raises:
        FrameError: it is cut, padded, or of another type.
    """
    try:
        count, flags, oid = _HEADER.unpack_from(raw)
        if not 0 <= count <= _MAX_DIMENSIONS or flags not in {0, 1} or oid != element_oid:
            raise FrameError("an array is not one of its type")
        at = _HEADER.size + count * _DIMENSION.size
        dimensions = tuple(_DIMENSION.unpack_from(raw, _HEADER.size + n * _DIMENSION.size) for n in range(count))
        total = prod(size for size, _ in dimensions) if dimensions else 0
        # Each element has a length of four bytes, so a number that is too large is seen before it is counted to.
        if any(size < 1 for size, _ in dimensions) or total > (len(raw) - at) // _LENGTH.size:
            raise FrameError("an array has another number of elements than it says")
        spans: list[tuple[int, int] | None] = []
        for _ in range(total):
            (length,) = _LENGTH.unpack_from(raw, at)
            at += _LENGTH.size
            spans.append(None if length == _NULL else (at, length))
            if length < _NULL or at + max(length, 0) > len(raw):
                raise FrameError("an element does not fit its array")
            at += max(length, 0)
    except struct.error:
        raise FrameError("an array is cut short") from None
    if at != len(raw):
        raise FrameError("bytes are left at the end of an array")
    return Elements(dimensions, tuple(spans))


def printed(raw: bytes, element_oid: int, show: Callable[[bytes, int], bytes]) -> bytes:
    """Print an array that has been checked; `show` prints an element."""
    found = parse(raw, element_oid)
    if not found.dimensions:
        return b"{}"
    texts = [b"NULL" if span is None else _quoted(show(raw[span[0] : sum(span)], element_oid)) for span in found.spans]
    bounds = b""
    if any(lower != 1 for _, lower in found.dimensions):
        bounds = b"".join(b"[%d:%d]" % (lower, lower + size - 1) for size, lower in found.dimensions) + b"="
    return bounds + _nested(texts, [size for size, _ in found.dimensions])


def _nested(texts: Sequence[bytes], sizes: Sequence[int]) -> bytes:
    if len(sizes) > 1:
        step = len(texts) // sizes[0]
        texts = [_nested(texts[at : at + step], sizes[1:]) for at in range(0, len(texts), step)]
    return b"{" + b",".join(texts) + b"}"


def _quoted(text: bytes) -> bytes:
    if text and text.upper() != b"NULL" and _QUOTED.isdisjoint(text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'

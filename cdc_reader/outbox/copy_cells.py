"""Rows of a binary COPY -> cells: where each value of each column lies in the joined buffer.

Pure. The counterpart of cdc_reader/capture/cells.py for rows that come from the table itself; from here on both take
the same
way, so that a value becomes the same bytes whichever way it came.

Source: https://www.postgresql.org/docs/current/sql-copy.html (binary format)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from outhaul.cdc_reader.capture.cells import Cells
from outhaul.cdc_reader.capture.frame import gather
from outhaul.sink.errors import FrameError

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.frame import Ints, Run

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER_BYTES = len(_SIGNATURE) + 8
_TRAILER = b"\xff\xff"
_COUNT_BYTES = 2
_LENGTH_BYTES = 4
_NULL = -1
_PAD = bytes(16)


def strip_header(message: bytes) -> bytes:
    """Return the rest of a COPY's first message.

    Raises:
        FrameError: it does not begin as binary COPY does, or has extensions that we do not know.
    """
    if message[: len(_SIGNATURE)] != _SIGNATURE or message[len(_SIGNATURE) : _HEADER_BYTES] != bytes(8):
        raise FrameError("a COPY does not begin as binary COPY does")
    return message[_HEADER_BYTES:]


def is_trailer(message: bytes) -> bool:
    """Tell the mark at the end from a row."""
    return message == _TRAILER


def walk(run: Run, columns: int) -> list[Cells]:
    """Find every value of the rows; one `Cells` for each of so many columns. The run is taken over, and padded.

    Raises:
        FrameError: a row is cut, padded, or has another number of columns.
    """
    run.data.extend(_PAD)
    sizes = np.asarray(run.lengths, np.int64)
    ends = np.cumsum(sizes)
    at = ends - sizes
    if (sizes < _COUNT_BYTES).any():
        raise FrameError("a row of a COPY is cut short")
    if (gather(run.data, at, np.int16) != columns).any():
        raise FrameError("a row of a COPY has another number of columns than was asked for")
    at = at + _COUNT_BYTES
    found = []
    for _ in range(columns):
        cells = _column(run.data, at, ends)
        at = cells.start + cells.length
        found.append(cells)
    if (at != ends).any():
        raise FrameError("bytes are left at the end of a row of a COPY")
    return found


def _column(buffer: bytearray, at: Ints, ends: Ints) -> Cells:
    start = at + _LENGTH_BYTES
    if (start > ends).any():
        raise FrameError("a row of a COPY is cut short")
    length = gather(buffer, at, np.int32).astype(np.int64)
    valid = length != _NULL
    length[~valid] = 0
    if (length < 0).any() or (start + length > ends).any():
        raise FrameError("a value does not fit its row")
    return Cells(buffer, start, length, valid, bool(valid.all()))

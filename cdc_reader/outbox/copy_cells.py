"""Rows of a binary COPY -> cells: where each value of each column is in the joined buffer.

Pure. It does for rows from the table what cdc_reader/capture/cells.py does for rows from the stream. Both are then
decoded by the same functions, so a value becomes the same bytes on each way.

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
    """Return the first message of a COPY without its header.

    Raises:
        FrameError: it does not start with the header of a binary COPY, or has extensions.
    """
    if message[: len(_SIGNATURE)] != _SIGNATURE or message[len(_SIGNATURE) : _HEADER_BYTES] != bytes(8):
        raise FrameError("a COPY does not start with the header of a binary COPY")
    return message[_HEADER_BYTES:]


def is_trailer(message: bytes) -> bool:
    """Tell whether a message is the trailer, not a row."""
    return message == _TRAILER


def walk(run: Run, columns: int) -> list[Cells]:
    """Find every value of the rows; return one `Cells` for each column. The run's buffer is used and gets padding.

    Args:
        run: the rows, joined.
        columns: number of columns.

    Raises:
        FrameError: a row has another length or number of columns.
    """
    run.data.extend(_PAD)
    sizes = np.asarray(run.lengths, np.int64)
    ends = np.cumsum(sizes)
    at = ends - sizes
    if (sizes < _COUNT_BYTES).any():
        raise FrameError("a row of a COPY is too short")
    if (gather(run.data, at, np.int16) != columns).any():
        raise FrameError("a row of a COPY has not the requested number of columns")
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
        raise FrameError("a row of a COPY is too short")
    length = gather(buffer, at, np.int32).astype(np.int64)
    valid = length != _NULL
    length[~valid] = 0
    if (length < 0).any() or (start + length > ends).any():
        raise FrameError("a value is longer than its row")
    return Cells(buffer, start, length, valid, bool(valid.all()))

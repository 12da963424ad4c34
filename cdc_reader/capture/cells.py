"""Insert messages and their relation -> cells: where each value of each column is, and in which form.

Pure. In a binary stream, too, Postgres sends values of a type without a send function as text, so each value has its
own form. All rows are processed at once, one column at a time. A position is checked against the end of its own message
before its value is used; until then, the padding at the end of the buffer keeps every read within bounds.

Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-TUPLEDATA
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from outhaul.cdc_reader.capture import arrow
from outhaul.cdc_reader.capture.frame import Bools, Bytes, Frames, Ints, gather
from outhaul.sink.errors import FrameError

if TYPE_CHECKING:
    from outhaul.cdc_reader.capture.pgoutput_messages import Relation

_NULL = ord("n")
_BINARY = ord("b")
_TEXT = ord("t")
_UNCHANGED = ord("u")
_NEW = ord("N")
_ROW_HEADER_BYTES = 8
_VALUE_HEADER_BYTES = 5


@dataclass(frozen=True, slots=True)
class Cells:
    """The values of one column: row i is `buffer[start[i]:start[i] + length[i]]`, or NULL where `valid[i]` is false.

    `start` never decreases, and 16 bytes of padding follow the last value in `buffer`. `dense` means that no row is
    NULL, which is the most common and the cheapest case. `text` is a mask of the values in text form; None means that
    all are in binary form.
    """

    buffer: bytes | bytearray
    start: Ints
    length: Ints
    valid: Bools
    dense: bool
    text: Bools | None = None

    def raw(self, row: int) -> bytes | None:
        """Return the bytes of one value, None for NULL. This is slow: only for single rows."""
        start = int(self.start[row])
        return bytes(self.buffer[start : start + int(self.length[row])]) if self.valid[row] else None

    def only(self, keep: Bools) -> Cells:
        """Return cells in which all rows that are not in `keep` are NULL."""
        valid = self.valid & keep
        return replace(self, valid=valid, dense=bool(valid.all()))

    def inner(self, before: int, after: int = 0) -> Cells:
        """Return cells without the first `before` and the last `after` bytes of every value that is not NULL."""
        at_start, at_both = before * self.valid, (before + after) * self.valid
        return replace(self, start=self.start + at_start, length=self.length - at_both)

    def numbers(self, kind: type[np.number[Any]]) -> npt.NDArray[Any]:
        """Return fixed-width big-endian numbers, 0 for NULL.

        Raises:
            FrameError: a value has another width.
        """
        self.check_width(np.dtype(kind).itemsize)
        values = gather(self.buffer, self.start, kind)
        if not self.dense:
            values[~self.valid] = 0
        return values

    def check_width(self, width: int) -> None:
        """Check that every value has `width` bytes.

        Raises:
            FrameError: a value has another length.
        """
        wrong = self.length != width
        if (wrong if self.dense else wrong & self.valid).any():
            raise FrameError(f"a value of a type with {width} bytes has another length")

    def matrix(self, width: int) -> Bytes:
        """Return the values that are not NULL as a matrix of bytes, one row of `width` bytes for each.

        Raises:
            FrameError: a value has another width.
        """
        self.check_width(width)
        starts = self.start[self.valid]
        if not len(starts):
            return np.empty((0, width), np.uint8)
        views = np.ndarray((len(self.buffer) - width + 1,), f"V{width}", self.buffer, strides=(1,))
        return np.frombuffer(views[starts].tobytes(), np.uint8).reshape(-1, width)

    def contents(self, kind: pa.DataType | None = None) -> pa.Array:
        """Copy the values, and no other bytes of the buffer, into an array of type `binary`, or of type `kind`.

        The gaps between the values are wrapped as values, too; `take` then drops them. So all is one pass in C.
        """
        count = len(self.start)
        offsets = np.empty(2 * count, np.int32)
        offsets[0::2] = self.start
        offsets[1::2] = self.start + self.length
        wanted = arrow.numbers(np.arange(0, 2 * count, 2), pa.int64(), self._valid_or_none())
        return arrow.spans(offsets, self.buffer, kind or pa.binary()).take(wanted)

    def array(self, values: npt.NDArray[Any], kind: pa.DataType, valid: Bools | None = None) -> pa.Array:
        """Wrap computed fixed-width values, NULL where the cells are or where not `valid`; their memory is shared."""
        return arrow.numbers(values, kind, self._valid_or_none() if valid is None else valid)

    def bools(self, values: Bools) -> pa.Array:
        """Wrap booleans, NULL where the cells are."""
        return arrow.bools(values, self._valid_or_none())

    def array_of_width(self, rows: Bytes) -> pa.Array:
        """Wrap a matrix of bytes, one row for each value that is not NULL, as an array of type `binary`."""
        offsets = np.zeros(len(self.valid) + 1, np.int32)
        np.cumsum(self.valid * rows.shape[1], dtype=np.int32, out=offsets[1:])
        return arrow.spans(offsets, rows, pa.binary(), self._valid_or_none())

    def _valid_or_none(self) -> Bools | None:
        return None if self.dense else self.valid


def walk(frames: Frames, rows: Ints, relation: Relation) -> list[Cells]:
    """Find every value of the Insert messages `rows`, all of one relation; return one `Cells` for each column.

    Raises:
        FrameError: a message has another length, relation or number of columns, or a value of an unknown kind.
    """
    starts, ends = frames.starts[rows], frames.ends[rows]
    if (ends - starts < _ROW_HEADER_BYTES).any():
        raise FrameError("an Insert message is too short")
    if (gather(frames.buffer, starts + 1, np.uint32) != relation.oid).any():
        raise FrameError(f"an Insert message is not for {relation.table}")
    if (np.frombuffer(frames.buffer, np.uint8)[starts + 5] != _NEW).any():
        raise FrameError("an Insert message has no new row")
    if (gather(frames.buffer, starts + 6, np.int16) != len(relation.columns)).any():
        raise FrameError(f"a row has another number of columns than {relation.table}")
    at = starts + _ROW_HEADER_BYTES
    columns = []
    for _ in relation.columns:
        cells = _column(frames.buffer, at, ends)
        at = cells.start + cells.length
        columns.append(cells)
    if (at != ends).any():
        raise FrameError("bytes are left at the end of an Insert message")
    return columns


def _column(buffer: bytes | bytearray, at: Ints, ends: Ints) -> Cells:
    kinds = np.frombuffer(buffer, np.uint8).take(at)
    valid, text = kinds == _BINARY, None
    dense = bool(valid.all())
    if not dense:
        is_text = kinds == _TEXT
        text = is_text if is_text.any() else None
        valid |= is_text
        dense = bool(valid.all())
    # Read as unsigned, a negative length becomes one that exceeds the message.
    length = gather(buffer, at + 1, np.uint32).astype(np.int64)
    if dense:
        start = at + _VALUE_HEADER_BYTES
    else:
        _check_kinds(kinds[~valid])
        length[~valid] = 0
        start = at + np.where(valid, _VALUE_HEADER_BYTES, 1)
    if (start + length > ends).any():
        raise FrameError("a value is longer than its message")
    return Cells(buffer, start, length, valid, dense, text)


def _check_kinds(kinds: Bytes) -> None:
    other = kinds[kinds != _NULL]
    if len(other):
        what = "an unchanged TOAST value" if other[0] == _UNCHANGED else f"a value of kind {chr(other[0])!r}"
        raise FrameError(f"an Insert message has {what}, which is not valid here")

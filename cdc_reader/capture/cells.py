"""Insert messages and their relation -> cells: where each value of each column lies in the joined buffer.

Pure. All rows are walked at once, a column at a time. A position is checked against the end of its own message before
any value is believed; until then the padding of the buffer keeps a look at it harmless.

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
    from outhaul.cdc_reader.capture.message import Relation

_NULL = ord("n")
_UNCHANGED = ord("u")
_NEW = ord("N")
_ROW_HEADER_BYTES = 8
_VALUE_HEADER_BYTES = 5


@dataclass(frozen=True, slots=True)
class Cells:
    """The values of one column: row i is `buffer[start[i]:start[i] + length[i]]`, or NULL where `valid[i]` is false.

    `start` never falls from row to row, and 16 bytes of padding follow the last value in `buffer`. `dense` says that no
    row is NULL, as is most common and cheapest.
    """

    buffer: bytes | bytearray
    start: Ints
    length: Ints
    valid: Bools
    dense: bool

    def raw(self, row: int) -> bytes | None:
        """Return one value; for the few rows that need a closer look."""
        start = int(self.start[row])
        return bytes(self.buffer[start : start + int(self.length[row])]) if self.valid[row] else None

    def only(self, keep: Bools) -> Cells:
        """Take the other rows for NULL."""
        valid = self.valid & keep
        return replace(self, valid=valid, dense=bool(valid.all()))

    def inner(self, before: int, after: int = 0) -> Cells:
        """Leave out bytes at both ends of every value that is not NULL."""
        at_start, at_both = before * self.valid, (before + after) * self.valid
        return replace(self, start=self.start + at_start, length=self.length - at_both)

    def numbers(self, kind: type[np.number[Any]]) -> npt.NDArray[Any]:
        """Read fixed-width big-endian numbers, 0 for NULL.

        Raises:
            FrameError: a value has another width.
        """
        self.check_width(np.dtype(kind).itemsize)
        values = gather(self.buffer, self.start, kind)
        if not self.dense:
            values[~self.valid] = 0
        return values

    def check_width(self, width: int) -> None:
        """Check that every value has this many bytes.

        Raises:
            FrameError: one has not.
        """
        wrong = self.length != width
        if (wrong if self.dense else wrong & self.valid).any():
            raise FrameError(f"a value that should have {width} bytes has another length")

    def matrix(self, width: int) -> Bytes:
        """Return the values that are not NULL, all of this width, as rows of bytes.

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
        """Copy the values, and nothing else of the buffer, into a `binary` (or `string`) array.

        The spans between the values are taken for values too, and then left out by `take`: one pass in C.
        """
        count = len(self.start)
        offsets = np.empty(2 * count, np.int32)
        offsets[0::2] = self.start
        offsets[1::2] = self.start + self.length
        wanted = arrow.numbers(np.arange(0, 2 * count, 2), pa.int64(), self._valid_or_none())
        return arrow.spans(offsets, self.buffer, kind or pa.binary()).take(wanted)

    def array(self, values: npt.NDArray[Any], kind: pa.DataType, valid: Bools | None = None) -> pa.Array:
        """Wrap computed fixed-width values, NULL where the cells are; their memory is shared, the buffer's is not."""
        return arrow.numbers(values, kind, self._valid_or_none() if valid is None else valid)

    def bools(self, values: Bools) -> pa.Array:
        """Wrap truth values, NULL where the cells are."""
        return arrow.bools(values, self._valid_or_none())

    def array_of_width(self, rows: Bytes) -> pa.Array:
        """Wrap a matrix of bytes, one row for each value that is not NULL, as `binary`."""
        offsets = np.zeros(len(self.valid) + 1, np.int32)
        np.cumsum(self.valid * rows.shape[1], dtype=np.int32, out=offsets[1:])
        return arrow.spans(offsets, rows, pa.binary(), self._valid_or_none())

    def _valid_or_none(self) -> Bools | None:
        return None if self.dense else self.valid


def walk(frames: Frames, rows: Ints, relation: Relation, *, binary: bool) -> list[Cells]:
    """Find every value of the Insert messages `rows`, all of one relation; one `Cells` for each of its columns.

    Raises:
        FrameError: a message is cut, padded, of another relation, or of another shape than the relation.
    """
    starts, ends = frames.starts[rows], frames.ends[rows]
    if (ends - starts < _ROW_HEADER_BYTES).any():
        raise FrameError("an Insert message is cut short")
    if (gather(frames.buffer, starts + 1, np.uint32) != relation.oid).any():
        raise FrameError(f"an Insert message is not one of {relation.table}")
    if (np.frombuffer(frames.buffer, np.uint8)[starts + 5] != _NEW).any():
        raise FrameError("an Insert message carries no new row")
    if (gather(frames.buffer, starts + 6, np.int16) != len(relation.columns)).any():
        raise FrameError(f"a row has another number of columns than {relation.table}")
    at = starts + _ROW_HEADER_BYTES
    columns = []
    for _ in relation.columns:
        cells = _column(frames.buffer, at, ends, ord("b") if binary else ord("t"))
        at = cells.start + cells.length
        columns.append(cells)
    if (at != ends).any():
        raise FrameError("bytes are left at the end of an Insert message")
    return columns


def _column(buffer: bytes | bytearray, at: Ints, ends: Ints, value: int) -> Cells:
    kinds = np.frombuffer(buffer, np.uint8).take(at)
    valid = kinds == value
    dense = bool(valid.all())
    # Read without a sign, a negative length is one that does not fit.
    length = gather(buffer, at + 1, np.uint32).astype(np.int64)
    if dense:
        start = at + _VALUE_HEADER_BYTES
    else:
        _check_kinds(kinds[~valid])
        length[~valid] = 0
        start = at + np.where(valid, _VALUE_HEADER_BYTES, 1)
    if (start + length > ends).any():
        raise FrameError("a value does not fit its message")
    return Cells(buffer, start, length, valid, dense)


def _check_kinds(kinds: Bytes) -> None:
    other = kinds[kinds != _NULL]
    if len(other):
        what = "unchanged" if other[0] == _UNCHANGED else f"of kind {chr(other[0])!r}"
        raise FrameError(f"an Insert message has a value {what}, which it cannot have here")

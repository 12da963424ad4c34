"""NumPy arrays -> Arrow arrays that share their memory, and back.

Pure. `pyarrow.array` is not used: it imports pandas if that is installed, which costs 50 MB and half a second, and the
reader never uses pandas.

Source: https://arrow.apache.org/docs/format/Columnar.html#buffer-listing-for-each-layout
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


def numbers(values: npt.NDArray[Any], kind: pa.DataType, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Wrap fixed-width values, NULL where they are not `valid`; `kind` must have the width of `values`."""
    return pa.Array.from_buffers(kind, len(values), [_bitmap(valid), pa.py_buffer(np.ascontiguousarray(values))])


def bools(values: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Wrap booleans, NULL where they are not `valid`."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [_bitmap(valid), _bitmap(values)])


def spans(
    offsets: npt.NDArray[np.int32],
    buffer: bytes | bytearray | npt.NDArray[np.uint8],
    kind: pa.DataType,
    valid: npt.NDArray[np.bool_] | None = None,
) -> pa.Array:
    """Wrap values of any length: value i is `buffer[offsets[i]:offsets[i + 1]]`, NULL where it is not `valid`."""
    return pa.Array.from_buffers(
        kind, max(len(offsets) - 1, 0), [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(buffer)]
    )


def texts(values: Sequence[bytes]) -> pa.Array:
    """Copy a few byte strings into a `binary` array."""
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    return spans(offsets, b"".join(values), pa.binary())


def values(column: pa.ChunkedArray, kind: type[np.number[Any]]) -> npt.NDArray[Any]:
    """Return the fixed-width values of a column without NULLs; `kind` must have the width of the column."""
    views = [
        np.frombuffer(chunk.buffers()[1], kind)[chunk.offset :][: len(chunk)] for chunk in column.chunks if len(chunk)
    ]
    return np.concatenate(views) if views else np.empty(0, kind)


def _bitmap(bits: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if bits is None else pa.py_buffer(np.packbits(bits, bitorder="little"))

"""CopyData frames of the replication stream -> bounds and tags of their messages; LSNs -> a Standby Status Update.

Pure. A piece of the stream is joined once and then read through arrays of positions, so that no Python code runs for a
single row. The functions for single frames are for the thread that reads the socket.

Source: https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from outhaul.sink.errors import FrameError
from outhaul.sink.position import Lsn

if TYPE_CHECKING:
    from collections.abc import Sequence

Bools: TypeAlias = npt.NDArray[np.bool_]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Ints: TypeAlias = npt.NDArray[np.int64]
Lsns: TypeAlias = npt.NDArray[np.uint64]

XLOG_DATA = ord("w")
KEEPALIVE = ord("k")
HEADER_BYTES = 25
KEEPALIVE_BYTES = 18
MAX_PIECE_BYTES = 2**31 - 64
"""Arrow's 32-bit offsets must reach every byte of a piece; Postgres limits one message to 1 GiB."""

_PAD = bytes(16)
_KEEPALIVE = struct.Struct(">cQq?")
_STATUS = struct.Struct(">cQQQq?")


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server's end of WAL, and whether the server requests a reply at once."""

    wal_end: Lsn
    reply_requested: bool


@dataclass(slots=True)
class Run:
    """Frames, joined in the order of arrival, and the length of each in bytes.

    One object for each frame would make millions of objects: small ones take twice their size, fragment the memory and
    keep the garbage collector busy. Here each frame is copied once, and is decoded in place.
    """

    data: bytearray = field(default_factory=bytearray)
    lengths: array[int] = field(default_factory=lambda: array("q"))


@dataclass(frozen=True, slots=True)
class Frames:
    """One piece of the stream, joined; `buffer[starts[i]:ends[i]]` is message i, from its tag byte on.

    `keepalive_at[j]` is the number of messages before keepalive j. `buffer` ends with padding that belongs to no
    message, so a fixed-width value may be read before it is checked against the end of its message.
    """

    buffer: bytes | bytearray
    starts: Ints
    ends: Ints
    tags: Bytes
    keepalive_at: Ints
    keepalive_wal_end: Lsns


def split(frames: Sequence[bytes | bytearray], lengths: Sequence[int] | None = None) -> Frames:
    """Join a piece and find its messages.

    Args:
        frames: the frames in order; or, with `lengths`, buffers of joined frames. A single bytearray is not copied: it
            becomes the buffer, and gets padding.
        lengths: length of each frame in bytes, if `frames` are joined.

    Raises:
        FrameError: a frame is neither XLogData with a message in it nor a keepalive of the right length.
    """
    sizes = np.fromiter(map(len, frames), np.int64, len(frames)) if lengths is None else np.asarray(lengths, np.int64)
    if sizes.sum() > MAX_PIECE_BYTES:
        raise FrameError("a piece of the stream exceeds 2 GiB", todo="Lower PIECE_BYTES in capture/batching.py")
    buffer = _joined(frames)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    if not sizes.all():
        raise FrameError("an empty frame was received")
    kinds = np.frombuffer(buffer, np.uint8)[starts]
    data = kinds == XLOG_DATA
    keepalive = kinds == KEEPALIVE
    if not (data | keepalive).all():
        raise FrameError(f"a frame of unknown kind {chr(kinds[~(data | keepalive)][0])!r} was received")
    if (sizes[data] <= HEADER_BYTES).any():
        raise FrameError("an XLogData frame is cut short")
    if (sizes[keepalive] != KEEPALIVE_BYTES).any():
        raise FrameError("a keepalive frame has the wrong length")
    message_starts = starts[data] + HEADER_BYTES
    return Frames(
        buffer=buffer,
        starts=message_starts,
        ends=ends[data],
        tags=np.frombuffer(buffer, np.uint8)[message_starts],
        keepalive_at=np.cumsum(data)[keepalive],
        keepalive_wal_end=gather(buffer, starts[keepalive] + 1, np.uint64),
    )


def _joined(frames: Sequence[bytes | bytearray]) -> bytes | bytearray:
    if len(frames) == 1 and isinstance(frames[0], bytearray):
        frames[0].extend(_PAD)
        return frames[0]
    return b"".join([*frames, _PAD])


def gather(buffer: bytes | bytearray, positions: Ints, kind: type[np.number[Any]]) -> npt.NDArray[Any]:
    """Return the big-endian number at each position, aligned or not; the caller checks the bounds."""
    dtype = np.dtype(kind)
    views = np.ndarray(
        shape=(max(len(buffer) - dtype.itemsize + 1, 0),), dtype=dtype.newbyteorder(">"), buffer=buffer, strides=(1,)
    )
    return views[positions].astype(dtype)


def is_keepalive(frame: bytes) -> bool:
    """Tell whether a frame is a keepalive, by its first byte."""
    return len(frame) > 0 and frame[0] == KEEPALIVE


def parse_keepalive(frame: bytes) -> Keepalive:
    """Read a keepalive.

    Raises:
        FrameError: the frame is not a keepalive, or has another length.
    """
    if len(frame) != KEEPALIVE_BYTES or not is_keepalive(frame):
        raise FrameError("a keepalive frame is malformed")
    _, wal_end_lsn, _, reply_requested = _KEEPALIVE.unpack(frame)
    return Keepalive(Lsn(wal_end_lsn), reply_requested)


def server_status(run: Run, first: int = 0) -> Keepalive:
    """Return the server's end of WAL in the last frame, and whether a keepalive requests a reply.

    Args:
        run: frames; at least one from `first` on.
        first: index of the first frame to read.

    Raises:
        FrameError: the last frame, or one with the length of a keepalive, is malformed.
    """
    lengths = np.frombuffer(run.lengths, np.int64)[first:]
    ends = len(run.data) - lengths.sum() + np.cumsum(lengths)
    short = [parse_keepalive(bytes(run.data[end - KEEPALIVE_BYTES : end])) for end in ends[lengths == KEEPALIVE_BYTES]]
    last = bytes(run.data[len(run.data) - lengths[-1] :])
    end = parse_keepalive(last).wal_end if is_keepalive(last) else wal_end(last)
    return Keepalive(end, any(one.reply_requested for one in short))


def wal_end(frame: bytes) -> Lsn:
    """Return the server's end of WAL from an XLogData frame.

    Raises:
        FrameError: the frame is not XLogData, or has no message.
    """
    if len(frame) <= HEADER_BYTES or frame[0] != XLOG_DATA:
        raise FrameError("an XLogData frame is malformed")
    return Lsn(int.from_bytes(frame[9:17], "big"))


def standby_status(write: Lsn, flush: Lsn, apply: Lsn, clock_us: int, reply_requested: bool = False) -> bytes:
    """Build a Standby Status Update; `clock_us` counts microseconds since 2000-01-01 UTC."""
    return _STATUS.pack(b"r", write, flush, apply, clock_us, reply_requested)

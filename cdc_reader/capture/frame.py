"""CopyData messages of the replication stream -> bounds and tags of the messages in them; LSNs -> a status update.

Pure. A piece of the stream is joined once and then only looked at through arrays of positions, so that nothing here
costs Python work for each row. What the socket thread needs of a single frame stands beside it.

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
"""Arrow's 32-bit offsets must reach every byte of a piece; one message never exceeds Postgres' own limit of 1 GiB."""

_PAD = bytes(16)
_KEEPALIVE = struct.Struct(">cQq?")
_STATUS = struct.Struct(">cQQQq?")


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server's word of how far it has sent, and whether it wants an answer at once."""

    wal_end: Lsn
    reply_requested: bool


@dataclass(slots=True)
class Run:
    """Frames, joined as they come, and the length of each in bytes.

    Kept singly they would be objects by the million: small ones take twice their size, leave memory in crumbs, and
    keep the garbage collector busy. What is read goes to its place at once, and is decoded there.
    """

    data: bytearray = field(default_factory=bytearray)
    lengths: array[int] = field(default_factory=lambda: array("q"))


@dataclass(frozen=True, slots=True)
class Frames:
    """One piece of the stream, joined; `starts[i]:ends[i]` of `buffer` is message i, its tag byte first.

    `keepalive_at[j]` is the number of messages before keepalive j. `buffer` ends with padding that belongs to no
    message, so that a fixed-width value may be looked at before it is known to lie inside its message.
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
        frames: one after the other; or runs of them, joined already. A single run is taken over, and padded.
        lengths: of each single frame in bytes, when they are joined.

    Raises:
        FrameError: a frame is neither XLogData with a message in it nor a keepalive of the right length.
    """
    sizes = np.fromiter(map(len, frames), np.int64, len(frames)) if lengths is None else np.asarray(lengths, np.int64)
    if sizes.sum() > MAX_PIECE_BYTES:
        raise FrameError("a piece of the stream exceeds 2 GiB", todo="Lower the size at which pieces are cut")
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
    """Read a big-endian number at each position, aligned or not; the caller has checked the bounds."""
    dtype = np.dtype(kind)
    views = np.ndarray(
        shape=(max(len(buffer) - dtype.itemsize + 1, 0),), dtype=dtype.newbyteorder(">"), buffer=buffer, strides=(1,)
    )
    return views[positions].astype(dtype)


def is_keepalive(frame: bytes) -> bool:
    """Tell a keepalive from the rest by its first byte."""
    return len(frame) > 0 and frame[0] == KEEPALIVE


def parse_keepalive(frame: bytes) -> Keepalive:
    """Read a keepalive.

    Raises:
        FrameError: not a keepalive, cut or padded.
    """
    if len(frame) != KEEPALIVE_BYTES or not is_keepalive(frame):
        raise FrameError("a keepalive frame is malformed")
    _, wal_end_lsn, _, reply_requested = _KEEPALIVE.unpack(frame)
    return Keepalive(Lsn(wal_end_lsn), reply_requested)


def heard(run: Run, first: int = 0) -> Keepalive:
    """Return how far the server has sent by the end of a run, and whether a keepalive in it wants an answer.

    Args:
        run: what was read, at least one frame from `first` on.
        first: how many frames were there before.

    Raises:
        FrameError: the last frame, or one as short as a keepalive, is malformed.
    """
    lengths = np.frombuffer(run.lengths, np.int64)[first:]
    ends = len(run.data) - lengths.sum() + np.cumsum(lengths)
    short = [parse_keepalive(bytes(run.data[end - KEEPALIVE_BYTES : end])) for end in ends[lengths == KEEPALIVE_BYTES]]
    last = bytes(run.data[len(run.data) - lengths[-1] :])
    end = parse_keepalive(last).wal_end if is_keepalive(last) else wal_end(last)
    return Keepalive(end, any(one.reply_requested for one in short))


def wal_end(frame: bytes) -> Lsn:
    """Return the server's WAL end that an XLogData frame reports.

    Raises:
        FrameError: not XLogData, or without a message.
    """
    if len(frame) <= HEADER_BYTES or frame[0] != XLOG_DATA:
        raise FrameError("an XLogData frame is malformed")
    return Lsn(int.from_bytes(frame[9:17], "big"))


def standby_status(write: Lsn, flush: Lsn, apply: Lsn, clock_us: int, reply_requested: bool = False) -> bytes:
    """Build a Standby Status Update; `clock_us` counts microseconds since 2000-01-01 UTC."""
    return _STATUS.pack(b"r", write, flush, apply, clock_us, reply_requested)

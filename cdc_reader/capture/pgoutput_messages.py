"""Bounds of pgoutput messages -> Begin, Commit, Relation and the other messages that carry no captured row.

Pure. Where transactions are small, Begin and Commit are as frequent as rows, so they are parsed many at a time. Rare
messages go through one bounds-checked reader. Every message must end exactly where its frame ends.

Source: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from outhaul.cdc_reader.capture.frame import Frames, Ints, Lsns, gather
from outhaul.sink.errors import FrameError
from outhaul.sink.position import Lsn
from outhaul.sink.quoting import join_name

BEGIN = ord("B")
COMMIT = ord("C")
INSERT = ord("I")
RELATION = ord("R")
MESSAGE = ord("M")

POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01 UTC in Unix microseconds; Postgres counts from there."""

MIN_TIMESTAMP = -211_813_488_000_000_000
END_TIMESTAMP = 9_223_371_331_200_000_000
"""4714-11-24 BC and the start of the year 294277, in microseconds since 2000: the range of Postgres' timestamps."""

_BEGIN_BYTES = 21
_COMMIT_BYTES = 26
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_OID = struct.Struct(">I")


class ByteReader:
    """Reads one message from its tag byte on, never beyond its end; `finish` checks that no byte is left."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes | bytearray, start: int = 0, end: int | None = None) -> None:
        """Read `data[start:end]`."""
        self._data = data
        self._at = start
        self._end = len(data) if end is None else end

    def take(self, count: int) -> bytes:
        """Return the next bytes.

        Raises:
            FrameError: the message has fewer bytes, or the count is negative.
        """
        if not 0 <= count <= self._end - self._at:
            raise FrameError("a message is too short")
        self._at += count
        return bytes(self._data[self._at - count : self._at])

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def int16(self) -> int:
        """Return a signed 16-bit number."""
        return int(_INT16.unpack(self.take(2))[0])

    def int32(self) -> int:
        """Return a signed 32-bit number."""
        return int(_INT32.unpack(self.take(4))[0])

    def oid(self) -> int:
        """Return an object id."""
        return int(_OID.unpack(self.take(4))[0])

    def text(self) -> str:
        """Return a zero-terminated name.

        Raises:
            FrameError: the zero byte is missing, or the name is not UTF-8 (the session's client encoding).
        """
        stop = self._data.find(0, self._at, self._end)
        if stop < 0:
            raise FrameError("a name in a message has no zero byte at its end")
        name = self.take(stop + 1 - self._at)[:-1]
        try:
            return name.decode()
        except UnicodeDecodeError:
            raise FrameError(f"a name in a message is not UTF-8: {name!r}") from None

    def finish(self) -> None:
        """Check that no byte is left.

        Raises:
            FrameError: the message is longer than its content.
        """
        if self._at != self._end:
            raise FrameError(f"{self._end - self._at} bytes are left at the end of a message")


@dataclass(frozen=True, slots=True)
class Column:
    """A published column; `type_modifier` is -1 for a type without a modifier."""

    name: str
    type_oid: int
    type_modifier: int = -1
    key: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """Definition of a table at the time when the rows that follow were written."""

    oid: int
    namespace: str
    name: str
    replica_identity: str
    columns: tuple[Column, ...]

    @property
    def table(self) -> str:
        """`schema.table`, unquoted; the protocol leaves out the name of the schema pg_catalog."""
        return join_name(self.namespace or "pg_catalog", self.name)


@dataclass(frozen=True, slots=True)
class Begins:
    """One entry for each Begin: LSN of the commit record and Unix microseconds of the commit."""

    commit_lsn: Lsns
    committed_at_us: Ints


@dataclass(frozen=True, slots=True)
class Commits:
    """One entry for each Commit: LSN of the commit record, and LSN of the transaction's end."""

    commit_lsn: Lsns
    end_lsn: Lsns


def begins(frames: Frames, index: Ints) -> Begins:
    """Parse all Begin messages at once.

    Raises:
        FrameError: a message has another length, or its time is out of Postgres' range.
    """
    at = _exact(frames, index, _BEGIN_BYTES, "Begin")
    time = gather(frames.buffer, at + 9, np.int64)
    if ((time < MIN_TIMESTAMP) | (time >= END_TIMESTAMP - POSTGRES_EPOCH_US)).any():
        raise FrameError("the time in a Begin message is out of Postgres' range")
    return Begins(gather(frames.buffer, at + 1, np.uint64), time + POSTGRES_EPOCH_US)


def commits(frames: Frames, index: Ints) -> Commits:
    """Parse all Commit messages at once.

    Raises:
        FrameError: a message has another length, or its end LSN is before its commit LSN.
    """
    at = _exact(frames, index, _COMMIT_BYTES, "Commit")
    read = Commits(gather(frames.buffer, at + 2, np.uint64), gather(frames.buffer, at + 10, np.uint64))
    if (read.end_lsn < read.commit_lsn).any():
        raise FrameError("the end LSN in a Commit message is before its commit LSN")
    return read


def _exact(frames: Frames, index: Ints, size: int, name: str) -> Ints:
    at = frames.starts[index]
    if (frames.ends[index] - at != size).any():
        raise FrameError(f"a {name} message has the wrong length")
    return at


def parse_relation(frame: ByteReader) -> Relation:
    """Parse a Relation message.

    Raises:
        FrameError: the message has another length, or a column occurs twice.
    """
    frame.byte()
    oid, namespace, name, identity = frame.oid(), frame.text(), frame.text(), chr(frame.byte())
    columns = tuple(_column(frame) for _ in range(_count(frame.int16())))
    frame.finish()
    if len({column.name for column in columns}) != len(columns):
        raise FrameError(f"a column of the relation {namespace}.{name} occurs twice")
    return Relation(oid, namespace, name, identity, columns)


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """What an app wrote into the WAL by `pg_logical_emit_message`; `lsn` is where its record begins."""

    transactional: bool
    lsn: Lsn
    prefix: str
    content: bytes


def parse_message(frame: ByteReader) -> LogicalMessage:
    """Parse a logical decoding message.

    Raises:
        FrameError: the message has another length.
    """
    frame.byte()
    flags, lsn = frame.byte(), Lsn(int.from_bytes(frame.take(8), "big"))
    prefix = frame.text()
    content = frame.take(frame.int32())
    frame.finish()
    return LogicalMessage(bool(flags & 1), lsn, prefix, content)


def _column(frame: ByteReader) -> Column:
    flags = frame.byte()
    return Column(frame.text(), frame.oid(), frame.int32(), key=bool(flags & 1))


def check_other(frame: ByteReader) -> None:
    """Check the form of a message that carries nothing to capture.

    These are Origin and Type, and Update, Delete and Truncate if the publication has them: outhaul captures inserts.

    Raises:
        FrameError: the message has another form or length, or this protocol version does not have its tag.
    """
    match chr(frame.byte()):
        case "O":
            frame.take(8)
            frame.text()
        case "Y":
            frame.oid()
            frame.text()
            frame.text()
        case "U":
            _check_update(frame)
        case "D":
            frame.oid()
            _check_tuple(frame, "KO")
        case "T":
            relations = _count(frame.int32())
            frame.byte()
            frame.take(4 * relations)
        case tag:
            raise FrameError(f"a message with the unknown tag {tag!r} was received")
    frame.finish()


def _check_update(frame: ByteReader) -> None:
    frame.oid()
    if _check_tuple(frame, "KON") != "N":
        _check_tuple(frame, "N")


def _check_tuple(frame: ByteReader, allowed: str) -> str:
    marker = chr(frame.byte())
    if marker not in allowed:
        raise FrameError(f"a row has the marker {marker!r}; expected was one of {allowed!r}")
    for _ in range(_count(frame.int16())):
        match chr(frame.byte()):
            case "n" | "u":
                pass
            case "t" | "b":
                frame.take(frame.int32())
            case kind:
                raise FrameError(f"a value of unknown kind {kind!r} was received")
    return marker


def _count(number: int) -> int:
    if number < 0:
        raise FrameError("a count in a message is negative")
    return number

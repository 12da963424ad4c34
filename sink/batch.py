"""Arrow record batch + positions -> Batch: payload, token and the small message that announces it.

Pure. A batch is the unit of everything behind the reader: of dispatch, insert, retry and deduplication. Its token is a
property of its contents, so that every way of sending it again sends the same token.

Source: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from outhaul.sink.errors import ForeignMessageError
from outhaul.sink.lanes import COPY, STREAM
from outhaul.sink.message_version import Address, check_version, is_well_formed

if TYPE_CHECKING:
    from collections.abc import Collection

    from outhaul.sink.position import Position

# A worker reads this version and the one before it (ADR 14). What tests/golden/ has of it never changes.
MESSAGE_VERSION = 3

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one ClickHouse table in stream order, ready to be sent.

    `events_table` is the table for the events of the outbox that they come from: `table` itself, or that beside which
    the dead letters stand. `payload` is an Arrow IPC stream of one record batch or several, LZ4; `token` names its
    contents.
    """

    events_table: str
    table: str
    first: Position
    last: Position
    rows: int
    payload: bytes
    token: str


class Packer:
    """Packs the rows of one batch as they come, so that no more than the packed ones are kept."""

    def __init__(self, source: str, table: str, schema: pa.Schema, events_table: str = "") -> None:
        """Begin a batch.

        Args:
            source: name of the pipeline, part of the token.
            table: ClickHouse table, without its database.
            schema: of all rows; each field's metadata `clickhouse` names its column type.
            events_table: ClickHouse table for the events of the same outbox, where that is another one.
        """
        self._source = source
        self.table = table
        self.events_table = events_table or table
        self.schema = schema
        self.rows = 0
        self._out = io.BytesIO()
        self._stream = pa.ipc.new_stream(self._out, schema, options=_LZ4)
        self._first: Position | None = None
        self._last: Position | None = None

    def add(self, records: pa.RecordBatch, first: Position, last: Position) -> None:
        """Append rows, at least one; `first` and `last` are the least and the greatest of their positions."""
        self._stream.write_batch(records)
        self.rows += records.num_rows
        self._first, self._last = min(self._first or first, first), max(self._last or last, last)

    @property
    def packed_bytes(self) -> int:
        """How large the payload is by now."""
        return self._out.tell()

    def finish(self) -> Batch:
        """Return the batch; nothing may be added afterwards.

        Raises:
            ValueError: nothing was added.
        """
        if self._first is None or self._last is None:
            raise ValueError("a batch without rows")
        self._stream.close()
        payload = self._out.getvalue()
        self._out = io.BytesIO()
        token = token_of(self._source, self.table, str(self._first), str(self._last), self.rows, payload)
        return Batch(self.events_table, self.table, self._first, self._last, self.rows, payload, token)


def encode(records: pa.RecordBatch) -> bytes:
    """Write an Arrow IPC stream of one record batch, LZ4: ClickHouse reads it as FORMAT ArrowStream."""
    out = io.BytesIO()
    with pa.ipc.new_stream(out, records.schema, options=_LZ4) as stream:
        stream.write_batch(records)
    return out.getvalue()


def decode(payload: bytes) -> pa.RecordBatch:
    """Read all rows of a payload as one record batch.

    Raises:
        pyarrow.ArrowException: it is no Arrow stream.
    """
    table = pa.ipc.open_stream(payload).read_all()
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=table.schema)


def token_of(source: str, table: str, first: str, last: str, rows: int, payload: bytes) -> str:
    """Derive the deduplication token: source, table, positions, count and a hash of the rows, 32 hex digits."""
    name = f"{source}\n{table}\n{first}\n{last}\n{rows}\n".encode()
    return hashlib.blake2b(name + hashlib.blake2b(payload, digest_size=32).digest(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Message(Address):
    """What the Celery message says of a batch: names, counts and positions, never rows.

    `epoch` and `owner` name who sent it; `attempt` counts the dispatches of the batch, from 0. The rows of a source
    come in two lanes, each with a fence of its own: the stream's, and that of rows copied from the outbox itself.
    `branch` is the ClickHouse table for the events of the outbox, by its name in the JSON. `version` is that of the
    message as it came.
    """

    owner: str
    attempt: int
    branch: str
    table: str
    rows: int
    size_bytes: int
    first: str
    last: str
    version: int = MESSAGE_VERSION

    @classmethod
    def of(
        cls, batch: Batch, *, source: str, lane: str = STREAM, epoch: int, owner: str, sequence: int, attempt: int
    ) -> Self:
        """Announce a batch."""
        return cls(
            source=source,
            lane=lane,
            epoch=epoch,
            owner=owner,
            sequence=sequence,
            attempt=attempt,
            branch=batch.events_table,
            table=batch.table,
            token=batch.token,
            rows=batch.rows,
            size_bytes=len(batch.payload),
            first=str(batch.first),
            last=str(batch.last),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the Celery argument: JSON types only."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object, table: str = "") -> Self:
        """Check and read a Celery argument.

        Args:
            data: what came.
            table: ClickHouse table for the events of the pipeline's first outbox: version 2 knew no other.

        Raises:
            OtherVersionError: a message of another version than this one and the one before it.
            ForeignMessageError: no message, or with a field that no reader writes.
        """
        if not isinstance(data, dict):
            raise _foreign("is none")
        if check_version(data, MESSAGE_VERSION, "a batch message") < MESSAGE_VERSION:
            if "branch" in data:
                raise _foreign("has other fields than ours")
            data = data | {"branch": table}
        wanted = cls.__dataclass_fields__
        if set(data) != set(wanted):
            raise _foreign("has other fields than ours")
        for name in wanted:
            if not is_well_formed(name, data[name]):
                raise _foreign(f"has a malformed {name}")
        if not data["rows"] or not data["size_bytes"]:
            raise _foreign("announces nothing")
        return cls(**data)

    def check_addressed(self, source: str, tables: Collection[str], never: Collection[str]) -> None:
        """Check that the message is for the pipeline of this source, and for one of its outbox' tables.

        An operator may have rows copied into a table of another name, but not into one that is in `never`.

        Raises:
            ForeignMessageError: it names another source or table.
        """
        if self.source != source:
            raise _foreign("names another source")
        if self.table not in tables and (self.lane != COPY or self.table in never):
            raise _foreign("names another table")

    def announces(self, payload: bytes) -> bool:
        """Tell whether this is the payload that the token was derived from: whole, unaltered, of these positions."""
        return self.token == token_of(self.source, self.table, self.first, self.last, self.rows, payload)

    @property
    def task_id(self) -> str:
        """Name of the task of this dispatch: what logs and Flower call it."""
        return f"{self.token}-{self.attempt}"

    @property
    def summary(self) -> str:
        """What a person needs to know of the batch: what Flower shows as the task's arguments.

        What is wanted most comes first, since a list of tasks has room for about fifty characters.
        """
        copied = ", copied from the outbox" if self.lane == COPY else ""
        return (
            f"({self.source} #{self.sequence}: {self.rows} rows, {self.first} to {self.last}, "
            f"into {self.table}{copied}, {self.size_bytes} bytes, epoch {self.epoch})"
        )


def _foreign(what: str) -> ForeignMessageError:
    return ForeignMessageError(f"a batch message that {what} was received", todo="Look who else writes to this queue")

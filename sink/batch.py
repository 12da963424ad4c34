"""Arrow record batches and positions -> Batch: payload and token; Batch -> the small message that announces it.

Pure. After the reader, the batch is the unit of dispatch, insert, retry and deduplication. The token is computed from
the contents of the batch, so every repetition of the batch has the same token.

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
from outhaul.sink.message_version import BatchAddress, check_version, is_well_formed

if TYPE_CHECKING:
    from collections.abc import Collection

    from outhaul.sink.position import Position

BYTEA = b"bytea"
"""Key in the metadata of a bytea column: Postgres prints its bytes in hex."""

# A worker reads this version and the previous one (ADR 14). The example of a version in tests/golden/ never changes.
MESSAGE_VERSION = 3

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one ClickHouse table in stream order, ready to be sent.

    `events_table` is the event table of the outbox that the rows come from. `table` is the same table, or the outbox's
    table of dead letters. `payload` is an Arrow IPC stream of one or more record batches, LZ4; `token` identifies its
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
    """Packs the rows of one batch as they arrive, so that only packed rows are kept in memory."""

    def __init__(self, source: str, table: str, schema: pa.Schema, events_table: str = "") -> None:
        """Begin a batch.

        Args:
            source: name of the pipeline, part of the token.
            table: ClickHouse table, without its database.
            schema: of all rows; the metadata `clickhouse` of a field is its column type.
            events_table: ClickHouse table for the events of the same outbox, if it is not `table`.
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
        """Append one row or more; `first` and `last` are their smallest and greatest position."""
        self._stream.write_batch(records)
        self.rows += records.num_rows
        self._first, self._last = min(self._first or first, first), max(self._last or last, last)

    @property
    def packed_bytes(self) -> int:
        """Current size of the payload."""
        return self._out.tell()

    def finish(self) -> Batch:
        """Return the batch; add no rows afterwards.

        Raises:
            ValueError: no row was added.
        """
        if self._first is None or self._last is None:
            raise ValueError("a batch without rows")
        self._stream.close()
        payload = self._out.getvalue()
        self._out = io.BytesIO()
        token = token_of(self._source, self.table, str(self._first), str(self._last), self.rows, payload)
        return Batch(self.events_table, self.table, self._first, self._last, self.rows, payload, token)


def encode(records: pa.RecordBatch) -> bytes:
    """Return an Arrow IPC stream of one record batch, LZ4; ClickHouse reads it as FORMAT ArrowStream."""
    out = io.BytesIO()
    with pa.ipc.new_stream(out, records.schema, options=_LZ4) as stream:
        stream.write_batch(records)
    return out.getvalue()


def decode(payload: bytes) -> pa.RecordBatch:
    """Read all rows of a payload as one record batch.

    Raises:
        pyarrow.ArrowException: the payload is not an Arrow stream.
    """
    table = pa.ipc.open_stream(payload).read_all()
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=table.schema)


def token_of(source: str, table: str, first: str, last: str, rows: int, payload: bytes) -> str:
    """Return the deduplication token, 32 hex digits: a hash of source, table, positions, row count and payload."""
    name = f"{source}\n{table}\n{first}\n{last}\n{rows}\n".encode()
    return hashlib.blake2b(name + hashlib.blake2b(payload, digest_size=32).digest(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Message(BatchAddress):
    """Contents of the Celery message that announces a batch: names, counts and positions, never rows.

    `epoch` and `owner` identify the sender; `attempt` counts the dispatches of the batch, from 0. `lane` is the lane
    of the rows (sink/lanes.py). `branch`, its name in the JSON, is the ClickHouse table for the events of the outbox.
    `version` is the version of the message as it was received.
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
        """Return the message that announces a batch."""
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
            data: the received argument.
            table: ClickHouse table for the events of the pipeline's first outbox, the only one that version 2 had.

        Raises:
            OtherVersionError: the message is neither of this version nor of the previous one.
            ForeignMessageError: it is not a message, or a field of it is not as readers write it.
        """
        if not isinstance(data, dict):
            raise _foreign("is not a JSON object")
        if check_version(data, MESSAGE_VERSION, "a batch message") < MESSAGE_VERSION:
            if "branch" in data:
                raise _foreign("has unexpected or missing fields")
            data = data | {"branch": table}
        wanted = cls.__dataclass_fields__
        if set(data) != set(wanted):
            raise _foreign("has unexpected or missing fields")
        for name in wanted:
            if not is_well_formed(name, data[name]):
                raise _foreign(f"has a malformed {name}")
        if not data["rows"] or not data["size_bytes"]:
            raise _foreign("announces no rows or no bytes")
        return cls(**data)

    def check_addressed(self, source: str, tables: Collection[str], never: Collection[str]) -> None:
        """Check that the message is for the pipeline of this source, and for one of its outbox's tables.

        Args:
            source: name of the pipeline.
            tables: the tables of the message's outbox.
            never: tables into which no copy may go. An operator may copy rows into a table of any other name.

        Raises:
            ForeignMessageError: the message names another source or table.
        """
        if self.source != source:
            raise _foreign("names another source")
        if self.table not in tables and (self.lane != COPY or self.table in never):
            raise _foreign("names another table")

    def announces(self, payload: bytes) -> bool:
        """Tell whether the token was computed from this payload and these positions: it is complete and unaltered."""
        return self.token == token_of(self.source, self.table, self.first, self.last, self.rows, payload)

    @property
    def task_id(self) -> str:
        """Id of this dispatch's task, in logs and in Flower."""
        return f"{self.token}-{self.attempt}"

    @property
    def summary(self) -> str:
        """Description of the batch for people; Flower shows it as the task's arguments.

        The most important parts come first, since Flower's list of tasks shows about fifty characters.
        """
        copied = ", copied from the outbox" if self.lane == COPY else ""
        return (
            f"({self.source} #{self.sequence}: {self.rows} rows, {self.first} to {self.last}, "
            f"into {self.table}{copied}, {self.size_bytes} bytes, epoch {self.epoch})"
        )


def _foreign(what: str) -> ForeignMessageError:
    return ForeignMessageError(
        f"a batch message that {what} was received", todo="Find out who else writes to this queue"
    )

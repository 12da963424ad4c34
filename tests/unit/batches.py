"""Small batches and their messages, as the reader makes them; for tests only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from outhaul.sink.batch import Batch, Message, Packer, decode
from outhaul.sink.position import Lsn, Position
from outhaul.sink.quarantine import DEAD_LETTER_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence


def pack(source: str, table: str, records: pa.RecordBatch, first: Position, last: Position) -> Batch:
    """Pack rows that come in one piece."""
    packer = Packer(source, table, records.schema)
    packer.add(records, first, last)
    return packer.finish()


def batch_of(values: Sequence[int]) -> Batch:
    fields = [pa.field("id", pa.int64(), metadata={"clickhouse": "Int64"}), *list(DEAD_LETTER_SCHEMA)[2:]]
    count = len(values)
    columns = [
        pa.array(values, pa.int64()),
        pa.array([9] * count, pa.uint64()),
        pa.array(range(count), pa.uint64()),
        pa.array([0] * count, pa.timestamp("us", "UTC")),
    ]
    records = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    return pack("outhaul", "event_log", records, Position(Lsn(9), 0), Position(Lsn(9), count - 1))


def batch_in_pieces(values: Sequence[int], pieces: int) -> Batch:
    """Return the rows of `batch_of` as `pieces` record batches, at most one a row."""
    whole = decode(batch_of(values).payload)
    packer = Packer("outhaul", "event_log", whole.schema)
    size = -(-len(values) // pieces)
    for start in range(0, len(values), size):
        part = whole.slice(start, size)
        packer.add(part, Position(Lsn(9), start), Position(Lsn(9), start + part.num_rows - 1))
    return packer.finish()


def message_of(batch: Batch, sequence: int = 0) -> Message:
    return Message.of(batch, source="outhaul", epoch=1, owner="me", sequence=sequence, attempt=0)

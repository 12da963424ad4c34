"""A batch that ClickHouse refuses -> the accepted rows stored, and the refused rows stored as dead letters.

Pure, except for the argument `store`, which tries to insert some rows. Bisection finds k refused rows among n in about
k * log2(n) inserts.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from outhaul.sink.batch import BYTEA, Message, decode, encode
from outhaul.sink.errors import Exit, FatalError, PoisonError, TooLargeError
from outhaul.sink.position import Lsn, Position

if TYPE_CHECKING:
    from collections.abc import Callable

    Store = Callable[[Message, bytes], None]

_POSITION = ("cdc_lsn", "cdc_ordinal", "cdc_committed_at")

DEAD_LETTER_SCHEMA = pa.schema(
    [
        pa.field("row", pa.binary(), metadata={"clickhouse": "String"}),
        pa.field("reason", pa.binary(), metadata={"clickhouse": "String"}),
        pa.field("cdc_lsn", pa.uint64(), metadata={"clickhouse": "UInt64"}),
        pa.field("cdc_ordinal", pa.uint64(), metadata={"clickhouse": "UInt64"}),
        pa.field("cdc_committed_at", pa.timestamp("us", "UTC"), metadata={"clickhouse": "DateTime64(6, 'UTC')"}),
    ]
)


def set_aside(
    message: Message, payload: bytes, store: Store, *, dead_letters: str, refused: PoisonError | None = None
) -> int:
    """Store the rows that ClickHouse accepts, set the others aside; return the number of rows set aside.

    Args:
        message: the refused batch.
        payload: its rows.
        store: inserts rows under a message; raises PoisonError if ClickHouse refuses them.
        dead_letters: name of the table for the refused rows.
        refused: the error of the whole batch, if it has been tried already. Then the whole batch is not tried a second
            time: even a single row may have megabytes.

    Raises:
        FatalError: one row alone is too large to reach ClickHouse; the message names it.
        PipelineError: any other error of `store`. Rows stored so far stay stored, and the next attempt leaves them out.
    """
    records = decode(payload)
    aside = 0
    ranges = [(0, records.num_rows)]
    while ranges:
        start, end = ranges.pop()
        part = replace(message, token=f"{message.token}-{start}-{end}", rows=end - start)
        try:
            if refused is not None and end - start == records.num_rows:
                raise refused
            store(part, encode(records.slice(start, end - start)))
        except PoisonError as error:
            if end - start > 1:
                middle = (start + end) // 2
                ranges += [(middle, end), (start, middle)]
                continue
            if isinstance(error, TooLargeError):
                raise _too_large(records.slice(start, 1), error) from error
            letter = replace(part, table=dead_letters, token=f"{part.token}-dead")
            store(letter, encode(dead_letter(records.slice(start, 1), str(error))))
            aside += 1
    return aside


def _too_large(record: pa.RecordBatch, error: TooLargeError) -> FatalError:
    """Return the error for one event that does not reach ClickHouse; its dead letter would be as large."""
    lsn, ordinal = (record.column(name)[0].as_py() for name in _POSITION[:2])
    named = f"the event at {Position(Lsn(lsn), ordinal)}"
    if (at := record.schema.get_field_index("id")) >= 0:
        named += f" with id {record.column(at)[0].as_py()}"
    message = f"{named} is too large to reach ClickHouse: {error.message}"
    return FatalError(message, todo=error.todo, exit_code=Exit.CLICKHOUSE_REFUSED)


def dead_letter(record: pa.RecordBatch, reason: str) -> pa.RecordBatch:
    """Return the dead letter for one refused row, with its values as text."""
    row = {
        field.name: _as_text(record.column(field.name)[0], in_hex=BYTEA in (field.metadata or {}))
        for field in record.schema
        if field.name not in _POSITION
    }
    text = json.dumps(row, ensure_ascii=False)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        text = json.dumps(row)
    position = [record.column(name) for name in _POSITION]
    return pa.record_batch(
        [pa.array([text.encode()], pa.binary()), pa.array([reason.encode()], pa.binary()), *position],
        DEAD_LETTER_SCHEMA,
    )


def _as_text(value: pa.Scalar, *, in_hex: bool) -> str | None:
    if not value.is_valid:
        return None
    plain = value.as_py()
    if not isinstance(plain, bytes):
        return str(plain)
    # Bytes that are not UTF-8 (from SQL_ASCII servers) become lone surrogates; a retry turns them into bytes again.
    return f"\\x{plain.hex()}" if in_hex else plain.decode("utf-8", "surrogateescape")

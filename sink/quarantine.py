"""A batch that ClickHouse refuses -> the rows it takes, stored; the rows it does not, as dead letters.

Pure decisions with one effect passed in: `store` tries to insert some rows. Halving finds the refused rows in about
k * log2(n) inserts for k of them among n.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from outhaul.sink.batch import Message, decode, encode
from outhaul.sink.errors import PoisonError

if TYPE_CHECKING:
    from collections.abc import Callable

    Store = Callable[[Message, bytes], None]

_POSITION = ("cdc_lsn", "cdc_ordinal", "cdc_committed_at")

BYTEA = b"bytea"
"""Key in the metadata of a field whose bytes Postgres prints in hex."""

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
    """Store what can be stored, set the rest aside; return how many rows were.

    Args:
        message: the batch that was refused.
        payload: its rows.
        store: inserts rows under a message; raises PoisonError when ClickHouse refuses them.
        dead_letters: name of the table for the refused rows.
        refused: how the whole was refused, if it was tried; a single row of megabytes is not worth a second time.

    Raises:
        PipelineError: whatever else `store` raises; everything done so far is kept and will be left out next time.
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
            letter = replace(part, table=dead_letters, token=f"{part.token}-dead")
            store(letter, encode(dead_letter(records.slice(start, 1), str(error))))
            aside += 1
    return aside


def dead_letter(record: pa.RecordBatch, reason: str) -> pa.RecordBatch:
    """Turn one refused row into a dead letter, its values as text."""
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
    # Bytes that are not UTF-8 (SQL_ASCII servers) come back by the same escape.
    return f"\\x{plain.hex()}" if in_hex else plain.decode("utf-8", "surrogateescape")

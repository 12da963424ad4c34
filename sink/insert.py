"""Batch message and Arrow payload -> rows in ClickHouse, once.

Pure but for the last line: builds the one INSERT of the product and gives it to ClickHouse. The rows travel as they
came from the reader; the schema in the payload's first bytes names the columns and their types.

Source: https://clickhouse.com/docs/sql-reference/table-functions/input
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sink.batch import parse_position
from sink.errors import ForeignMessageError
from sink.sql import identifier, literal, query

if TYPE_CHECKING:
    from sink.batch import Message
    from sink.clickhouse import ClickHouse

# NULL is kept everywhere but here: a partition key cannot be NULL, so the commit time stands in.
_EXPRESSIONS = {"event_date_time": "coalesce(event_date_time, cdc_committed_at)"}


def mark(source: str) -> str:
    """Return the log_comment by which the inserts of one source are found among the running queries."""
    return f"outhaul:{source}"


def insert(
    clickhouse: ClickHouse,
    message: Message,
    payload: bytes,
    *,
    epochs: str,
    timeout_s: float,
    again: bool,
    dead_letters: str = "",
) -> None:
    """Store a batch.

    Args:
        clickhouse: where to.
        message: which batch, and of which reader.
        payload: Arrow IPC stream.
        epochs: name of the table that holds the fence.
        timeout_s: ClickHouse ends the statement after so many seconds.
        again: this batch may have been sent before; rows that are there already are left out.
        dead_letters: name of the table in which rows of this batch may be, too.

    Raises:
        PipelineError: of the kind that ClickHouse's code says.
    """
    clickhouse.command(
        statement(message.table, epochs, schema_of(payload), again=again, dead_letters=dead_letters),
        parameters=parameters(message),
        settings=settings(message, timeout_s),
        data=payload,
    )


def schema_of(payload: bytes) -> pa.Schema:
    """Return the schema with which a payload begins.

    Raises:
        ForeignMessageError: it is no payload of a reader's.
    """
    try:
        schema = pa.ipc.open_stream(payload).schema
    except (pa.ArrowException, OSError) as error:
        raise ForeignMessageError(f"a payload is no Arrow stream: {error}") from None
    if any(b"clickhouse" not in (field.metadata or {}) for field in schema):
        raise ForeignMessageError("a payload has columns that no reader has typed")
    return schema


def statement(table: str, epochs: str, schema: pa.Schema, *, again: bool, dead_letters: str = "") -> str:
    """Return the INSERT for rows of this schema."""
    holders = {table, dead_letters or table} if again else set()
    names = [identifier(field.name) for field in schema]
    expressions = [_EXPRESSIONS.get(field.name, name) for field, name in zip(schema, names, strict=True)]
    structure = ", ".join(f"{name} {column_type(field)}" for field, name in zip(schema, names, strict=True))
    return query(
        "insert",
        table=table,
        epochs=epochs,
        columns=", ".join(names),
        expressions=", ".join(expressions),
        structure=literal(structure),
        unless_held="\n".join(query("unless_held", table=holder) for holder in sorted(holders)),
    )


def column_type(field: pa.Field) -> str:
    """Return the ClickHouse type that the reader wrote beside a column."""
    kind: bytes = field.metadata[b"clickhouse"]
    return kind.decode()


def parameters(message: Message) -> dict[str, Any]:
    """Return what the statement binds."""
    return {
        "source": message.source,
        "owner": message.owner,
        "first_lsn": int(parse_position(message.first).lsn),
        "last_lsn": int(parse_position(message.last).lsn),
    }


def settings(message: Message, timeout_s: float) -> dict[str, Any]:
    """Return the settings that make the insert whole, synchronous, deduplicated, bounded in time and findable."""
    return {
        "insert_deduplicate": 1,
        "insert_deduplication_token": message.token,
        # An asynchronous insert is acknowledged before it is stored, or deduplicated by other rules.
        "async_insert": 0,
        "wait_end_of_query": 1,
        # Events of many months in one batch are no error.
        "max_partitions_per_insert_block": 0,
        # A NULL where the table has none is refused and set aside, not turned into an empty value.
        "insert_null_as_default": 0,
        "input_format_null_as_default": 0,
        "max_execution_time": int(timeout_s),
        "log_comment": mark(message.source),
    }

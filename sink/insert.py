"""Batch message and Arrow payload -> rows in ClickHouse, each once.

Edge: ClickHouse, in `insert` only; all other functions are pure. `insert` runs the product's one INSERT statement,
measures its duration, and checks its effect if an earlier insert of the batch may have died. ClickHouse gets the
payload as the reader made it; the schema in its first bytes names the columns and their types.

Source: https://clickhouse.com/docs/sql-reference/table-functions/input
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from outhaul.sink.errors import ForeignMessageError
from outhaul.sink.lanes import mark
from outhaul.sink.position import parse_position
from outhaul.sink.quoting import clickhouse_identifier, clickhouse_literal
from outhaul.sink.replicas import IN_SEQUENCE
from outhaul.sink.schema import column_type
from outhaul.sink.sql import query
from outhaul.sink.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outhaul.sink.batch import Message
    from outhaul.sink.clickhouse import ClickHouse

log = structlog.get_logger("outhaul.sink")

# NULL stays NULL in every other column. A partition key cannot be NULL, so the commit time replaces it.
_EXPRESSIONS = {"event_date_time": "coalesce(event_date_time, cdc_committed_at)"}

# The columns of this expression; one of these two times is the event_date_time of the stored row.
_TIMES = ("event_date_time", "cdc_committed_at")
_POSITION = ("cdc_lsn", "cdc_ordinal")
_MICROSECONDS = pa.timestamp("us", "UTC")

# Rows of a batch can only be stored within the batch's range of times, so ClickHouse reads few parts, and usually none.
# `parameters` extends the range by a second on both sides: a user's own table may store whole seconds only.
_WITHIN_TIMES = (
    "AND event_date_time BETWEEN fromUnixTimestamp64Micro({from_us:Int64}) AND fromUnixTimestamp64Micro({to_us:Int64})"
)
_SECOND_US = 1_000_000

_DECIMAL = re.compile(r"Decimal\(\d+, \d+\)")
_MAX_UINT64 = (1 << 64) - 1


def insert(
    clickhouse: ClickHouse,
    message: Message,
    payload: bytes,
    *,
    epochs: str,
    timeout_s: float,
    tables: Sequence[str],
    again: bool = False,
) -> None:
    """Insert the rows of a batch, except rows that are already stored.

    ClickHouse records the token of a part just before it commits the part. If it is killed in between, it remembers a
    token without the rows, and ignores the same insert when it is sent again. So if an earlier insert of the batch in
    this epoch may have died, `insert` afterwards looks up the batch's positions, and inserts the missing rows under a
    second token. All tasks that do this for the same batch use the same second token, so only one of them inserts.

    Args:
        clickhouse: the server to insert into.
        message: the batch, and the reader that sent it.
        payload: Arrow IPC stream.
        epochs: name of the table that holds the fence.
        timeout_s: time after which ClickHouse ends the statement, in seconds.
        tables: names of all tables in which rows of this batch may be: events and dead letters.
        again: whether an earlier insert of this batch may have died.

    Raises:
        PipelineError: ClickHouse refuses or does not answer; its error code determines the kind.
    """
    contents = contents_of(payload)

    def send(named: Message) -> None:
        begun_at = time.monotonic()
        try:
            clickhouse.command(
                statement(message.table, epochs, contents, tables),
                parameters=parameters(message, contents),
                settings=settings(named, timeout_s),
                data=payload,
            )
        finally:
            metrics.inserted(time.monotonic() - begun_at)

    send(message)
    if again and (missing := _count_missing(clickhouse, message, payload, contents, tables)):
        log.warning("token_without_rows", table=message.table, rows=missing)
        send(replace(message, token=f"{message.token}-again"))


def _count_missing(
    clickhouse: ClickHouse, message: Message, payload: bytes, contents: Contents, tables: Sequence[str]
) -> int:
    """Return how many rows of a batch are missing from all of the tables."""
    missing = _positions(payload)
    bound = parameters(message, contents)
    for one in tables:
        asked = _stored_within(one, message.table, contents)
        found = clickhouse.rows(asked, parameters=bound, settings=IN_SEQUENCE)
        missing.difference_update((int(lsn), int(ordinal)) for lsn, ordinal in found)
    return len(missing)


def _positions(payload: bytes) -> set[tuple[int, int]]:
    stream = pa.ipc.open_stream(payload)
    options = pa.ipc.IpcReadOptions(included_fields=[stream.schema.get_field_index(name) for name in _POSITION])
    read = pa.ipc.open_stream(payload, options=options).read_all()
    return set(zip(*(read.column(name).to_pylist() for name in _POSITION), strict=True))


def _stored_within(table: str, target: str, contents: Contents) -> str:
    # Only the table into which a batch of events goes has their times, and only such a batch has a range of times.
    when = _WITHIN_TIMES if table == target and contents.from_us is not None else ""
    return query("stored_within", table=table, when=when)


@dataclass(frozen=True, slots=True)
class Contents:
    """What an insert needs to know about a payload: its columns, and the first and last time of its rows (Unix µs).

    Both times are None if the payload lacks a time column, or one of them is not a timestamp in microseconds.
    """

    schema: pa.Schema
    from_us: int | None = None
    to_us: int | None = None


def contents_of(payload: bytes) -> Contents:
    """Read the schema and the range of times of a payload; of its rows, only the time columns are unpacked.

    Raises:
        ForeignMessageError: no reader has made this payload.
    """
    try:
        schema = pa.ipc.open_stream(payload).schema
        if any(b"clickhouse" not in (field.metadata or {}) for field in schema):
            raise ForeignMessageError("a payload has columns without a ClickHouse type")
        wanted = [schema.get_field_index(name) for name in _TIMES]
        if any(index < 0 or schema.field(index).type != _MICROSECONDS for index in wanted):
            return Contents(schema)
        options = pa.ipc.IpcReadOptions(included_fields=wanted)
        times = pa.ipc.open_stream(payload, options=options).read_all()
        ends = pc.min_max(pc.coalesce(*(times.column(name).cast(pa.int64()) for name in _TIMES)))
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise ForeignMessageError(f"a payload is not an Arrow stream: {error}") from None
    return Contents(schema, ends["min"].as_py(), ends["max"].as_py())


def statement(table: str, epochs: str, contents: Contents, tables: Sequence[str]) -> str:
    """Return the INSERT into `table` of rows with these contents; it leaves out rows that are in one of `tables`."""
    schema = contents.schema
    names = [clickhouse_identifier(field.name) for field in schema]
    expressions = [_EXPRESSIONS.get(field.name, name) for field, name in zip(schema, names, strict=True)]
    structure = ", ".join(f"{name} {_input_type(field)}" for field, name in zip(schema, names, strict=True))
    conditions = [query("unless_stored", stored=_stored_within(one, table, contents)) for one in tables]
    return query(
        "insert",
        table=table,
        epochs=epochs,
        columns=", ".join(names),
        expressions=", ".join(expressions),
        structure=clickhouse_literal(structure),
        unless_stored="\n".join(conditions),
    )


def _input_type(field: pa.Field) -> str:
    """Return the type in which ClickHouse reads a column, before it casts it to the column's type in the table.

    A Decimal is read as text: if the table's column is a String, it gets the digits as Postgres prints them.
    """
    return _DECIMAL.sub("String", column_type(field))


def parameters(message: Message, contents: Contents) -> dict[str, Any]:
    """Return the values of the statement's parameters."""
    first, last = parse_position(message.first), parse_position(message.last)
    within_one = first.lsn == last.lsn
    bound = {
        "source": message.source,
        "fence": message.fence,
        "owner": message.owner,
        "first_lsn": int(first.lsn),
        "last_lsn": int(last.lsn),
        # The batches of one long transaction share the LSN. Without these bounds, each batch would read the positions
        # of all batches before it.
        "first_ordinal": first.ordinal if within_one else 0,
        "last_ordinal": last.ordinal if within_one else _MAX_UINT64,
    }
    if contents.from_us is not None and contents.to_us is not None:
        bound |= {"from_us": contents.from_us - _SECOND_US, "to_us": contents.to_us + _SECOND_US}
    return bound


def settings(message: Message, timeout_s: float) -> dict[str, Any]:
    """Return the settings that make the insert atomic, synchronous, deduplicated, limited in time, and identifiable."""
    return {
        "insert_deduplicate": 1,
        # A reader begins to cut batches after all inserts of older epochs have ended, and may cut the same batch as its
        # predecessor. With the epoch in it, the token is new: tokens of older epochs do not suppress this insert.
        "insert_deduplication_token": f"{message.token}-{message.epoch}",
        # ClickHouse acknowledges an asynchronous insert before it is stored, or deduplicates it by other rules.
        "async_insert": 0,
        "wait_end_of_query": 1,
        # A replica that has not received everything does not judge by what it has.
        **IN_SEQUENCE,
        # ClickHouse reads a batch in pieces. With these two settings it makes one block of them, of up to as many rows
        # as a batch may have, and so one part for each month.
        "min_insert_block_size_rows": 1 << 20,
        "min_insert_block_size_bytes": 0,
        # One stream of rows becomes one part; more threads would only cost time to start and stop.
        "max_threads": 1,
        # The rows of a batch are never versions of each other, so a merge before the insert would be useless work.
        "optimize_on_insert": 0,
        # A batch may contain events of many months.
        "max_partitions_per_insert_block": 0,
        # A NULL for a column that is not Nullable is refused and set aside, not replaced by an empty value.
        "insert_null_as_default": 0,
        "input_format_null_as_default": 0,
        "max_execution_time": int(timeout_s),
        "log_comment": mark(message.fence),
    }

"""Batch message and Arrow payload -> rows in ClickHouse, once.

Pure but for `insert`, which gives the one INSERT of the product to ClickHouse, counts how long that took, and looks
after it where an earlier one may have died. The rows travel as they came from the reader; the schema in the payload's
first bytes names the columns and their types.

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
from outhaul.sink.schema import column_type
from outhaul.sink.sql import identifier, literal, query
from outhaul.sink.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outhaul.sink.batch import Message
    from outhaul.sink.clickhouse import ClickHouse

log = structlog.get_logger("outhaul.sink")

# NULL is kept everywhere but here: a partition key cannot be NULL, so the commit time stands in.
_EXPRESSIONS = {"event_date_time": "coalesce(event_date_time, cdc_committed_at)"}

# What that expression is made of; every row lies at one of these times.
_TIMES = ("event_date_time", "cdc_committed_at")
_POSITION = ("cdc_lsn", "cdc_ordinal")
_MICROSECONDS = pa.timestamp("us", "UTC")

# Rows of a batch can only be held where its times are, so ClickHouse looks at few parts, mostly at none. A second more
# on both sides: a table that somebody made may keep whole seconds only.
_WHEN = (
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
    """Store a batch, but for those of its rows that are there already.

    ClickHouse notes the token of a part just before the part is in its place. Killed in between, it remembers a token
    of rows that it does not have, and takes the same insert, sent again, for done. So where an earlier insert of the
    batch in this epoch may have died, its positions are looked for, and rows that are missing are inserted under a
    second token, which all share who look at the same time.

    Args:
        clickhouse: where to.
        message: which batch, and of which reader.
        payload: Arrow IPC stream.
        epochs: name of the table that holds the fence.
        timeout_s: ClickHouse ends the statement after so many seconds.
        tables: names of all tables in which rows of this batch may be: events and dead letters.
        again: an insert of this batch may have died before.

    Raises:
        PipelineError: of the kind that ClickHouse's code says.
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
    """Return how many rows of a batch are in none of the tables."""
    wanted = _positions(payload)
    bound = parameters(message, contents)
    for one in tables:
        found = clickhouse.rows(_stored_within(one, message.table, contents), parameters=bound)
        wanted.difference_update((int(lsn), int(ordinal)) for lsn, ordinal in found)
    return len(wanted)


def _positions(payload: bytes) -> set[tuple[int, int]]:
    stream = pa.ipc.open_stream(payload)
    options = pa.ipc.IpcReadOptions(included_fields=[stream.schema.get_field_index(name) for name in _POSITION])
    read = pa.ipc.open_stream(payload, options=options).read_all()
    return set(zip(*(read.column(name).to_pylist() for name in _POSITION), strict=True))


def _stored_within(table: str, target: str, contents: Contents) -> str:
    # Only a table that events go to has their times, and only their batches tell between which these lie.
    when = _WHEN if table == target and contents.from_us is not None else ""
    return query("stored_within", table=table, when=when)


@dataclass(frozen=True, slots=True)
class Contents:
    """What the insert must know of a payload: its columns, and between which times (Unix µs) its events lie.

    Both times are None where events have no time of a kind that can be compared.
    """

    schema: pa.Schema
    from_us: int | None = None
    to_us: int | None = None


def contents_of(payload: bytes) -> Contents:
    """Look into a payload; of its rows only the times are unpacked.

    Raises:
        ForeignMessageError: it is no payload of a reader's.
    """
    try:
        schema = pa.ipc.open_stream(payload).schema
        if any(b"clickhouse" not in (field.metadata or {}) for field in schema):
            raise ForeignMessageError("a payload has columns that no reader has typed")
        wanted = [schema.get_field_index(name) for name in _TIMES]
        if any(index < 0 or schema.field(index).type != _MICROSECONDS for index in wanted):
            return Contents(schema)
        options = pa.ipc.IpcReadOptions(included_fields=wanted)
        times = pa.ipc.open_stream(payload, options=options).read_all()
        ends = pc.min_max(pc.coalesce(*(times.column(name).cast(pa.int64()) for name in _TIMES)))
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise ForeignMessageError(f"a payload is no Arrow stream: {error}") from None
    return Contents(schema, ends["min"].as_py(), ends["max"].as_py())


def statement(table: str, epochs: str, contents: Contents, tables: Sequence[str]) -> str:
    """Return the INSERT into `table` for rows like these, which may be in any of `tables`."""
    schema = contents.schema
    names = [identifier(field.name) for field in schema]
    expressions = [_EXPRESSIONS.get(field.name, name) for field, name in zip(schema, names, strict=True)]
    structure = ", ".join(f"{name} {_carried(field)}" for field, name in zip(schema, names, strict=True))
    held = [query("unless_stored", stored=_stored_within(one, table, contents)) for one in tables]
    return query(
        "insert",
        table=table,
        epochs=epochs,
        columns=", ".join(names),
        expressions=", ".join(expressions),
        structure=literal(structure),
        unless_stored="\n".join(held),
    )


def _carried(field: pa.Field) -> str:
    """Return the type in which a column is read; ClickHouse makes of it what the table has.

    A Decimal comes as its digits: a table that has a String there gets them as Postgres prints them.
    """
    return _DECIMAL.sub("String", column_type(field))


def parameters(message: Message, contents: Contents) -> dict[str, Any]:
    """Return what the statement binds."""
    first, last = parse_position(message.first), parse_position(message.last)
    within_one = first.lsn == last.lsn
    bound = {
        "source": message.source,
        "fence": message.fence,
        "owner": message.owner,
        "first_lsn": int(first.lsn),
        "last_lsn": int(last.lsn),
        # Pieces of one long transaction share the LSN; without this each would read the positions of all before it.
        "first_ordinal": first.ordinal if within_one else 0,
        "last_ordinal": last.ordinal if within_one else _MAX_UINT64,
    }
    if contents.from_us is not None and contents.to_us is not None:
        bound |= {"from_us": contents.from_us - _SECOND_US, "to_us": contents.to_us + _SECOND_US}
    return bound


def settings(message: Message, timeout_s: float) -> dict[str, Any]:
    """Return the settings that make the insert whole, synchronous, deduplicated, bounded in time and findable."""
    return {
        "insert_deduplicate": 1,
        # Inserts of older epochs are at rest when a reader cuts batches, perhaps as the one before it did: what
        # ClickHouse has noted of those says nothing of these.
        "insert_deduplication_token": f"{message.token}-{message.epoch}",
        # An asynchronous insert is acknowledged before it is stored, or deduplicated by other rules.
        "async_insert": 0,
        "wait_end_of_query": 1,
        # A batch comes in pieces; it becomes one block, and so one part a month, of as many rows as a batch may have.
        "min_insert_block_size_rows": 1 << 20,
        "min_insert_block_size_bytes": 0,
        # One stream of rows comes in and one part goes out; more threads than that only have to be begun and ended.
        "max_threads": 1,
        # Rows of a batch are never versions of each other, so nothing is gained by looking for that.
        "optimize_on_insert": 0,
        # Events of many months in one batch are no error.
        "max_partitions_per_insert_block": 0,
        # A NULL where the table has none is refused and set aside, not turned into an empty value.
        "insert_null_as_default": 0,
        "input_format_null_as_default": 0,
        "max_execution_time": int(timeout_s),
        "log_comment": mark(message.fence),
    }

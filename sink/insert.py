"""Batch message and Arrow payload -> rows in ClickHouse and in the views on its table, each once.

Edge: ClickHouse, in `insert` only; all other functions are pure. ClickHouse gets the payload as the reader made it; the
schema in its first bytes names the columns and their types. An insert of events is all or nothing: views receive the
rows of a batch under the batch's token, so the same token must always have the same rows.

Source: docs/adr/0017-a-view-receives-each-event-once.md, https://clickhouse.com/docs/sql-reference/table-functions/input
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from outhaul.sink.clickhouse_errors import is_thrown
from outhaul.sink.errors import FatalError, ForeignMessageError
from outhaul.sink.fence import EpochOverError
from outhaul.sink.lanes import mark
from outhaul.sink.position import parse_position
from outhaul.sink.push_again import FORGOTTEN, NOTED, batch_settings, memory, push_again
from outhaul.sink.quoting import clickhouse_identifier, clickhouse_literal
from outhaul.sink.replicas import IN_SEQUENCE, Servers
from outhaul.sink.schema import column_type
from outhaul.sink.sql import query
from outhaul.sink.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from outhaul.sink.batch import Message
    from outhaul.sink.clickhouse import ClickHouse

log = structlog.get_logger("outhaul.sink")

STORED_ALREADY = "outhaul: stored already"
"""What ClickHouse answers to an insert of which a position is stored."""

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
_COMPARE = "If the table has views, compare them: `outhaul verify --views`"
_BY_OTHERS = "AND cdc_batch != {batch:UInt64}"
_SECOND_US = 1_000_000
_NONE: Mapping[str, int] = MappingProxyType({})

_DECIMAL = re.compile(r"Decimal\(\d+, \d+\)")
_MAX_UINT64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows of an outbox may be, and who may insert.

    `events` is the table for the rows, `letters` the outbox's table of dead letters, or empty if letters do not count,
    `view_gaps` the table of what views lack.
    `guard` is the condition of `outhaul.sink.fence.guard`, `timeout_s` the time after which ClickHouse ends an insert.
    With `ignore_view_errors`, a view that raises costs neither the table nor the other views. `servers` finds those
    that have the table; it is called for an insert that is repeated.
    """

    events: str
    letters: str
    view_gaps: str
    guard: str
    timeout_s: float
    ignore_view_errors: bool = False
    servers: Callable[[], Servers] = Servers

    def tables(self) -> Iterable[str]:
        """Return the tables that can have a row."""
        return (self.events, self.letters) if self.letters else (self.events,)


def insert(
    clickhouse: ClickHouse,
    message: Message,
    payload: bytes,
    target: Target,
    *,
    contents: Contents | None = None,
    again: bool = False,
) -> bool:
    """Insert the rows of a batch that are not stored yet, and send all of them to the views of its table.

    An insert that ClickHouse broke off may have stored some of the rows, or all rows but not those of the views. The
    same batch completes them under the same token.

    Args:
        clickhouse: the server to insert into.
        message: the batch, and the reader that sent it.
        payload: Arrow IPC stream.
        target: the outbox's tables.
        contents: in place of what `contents_of` returns, if the caller knows better.
        again: whether an earlier insert of this batch may have ended with an error.

    Returns:
        Whether rows of the batch were stored before.

    Raises:
        EpochOverError: ClickHouse drops the batch without having its rows, or has rows of it under other tokens.
        PipelineError: ClickHouse refuses or does not answer; its error code determines the kind.
    """
    contents = contents or contents_of(payload)
    if message.table == target.letters:
        # While an insert is in doubt, a replica shows letters that it may lose: it is repeated whole, under its token.
        tables = (target.events,) if again and target.servers().are_replicas else target.tables()
        _send(clickhouse, message, payload, contents, target, _leave_out(tables, target, contents))
        return False
    try:
        _send(clickhouse, message, payload, contents, target, _refuse(target, contents))
    except FatalError as error:
        if not is_thrown(error, STORED_ALREADY):
            raise
        _complete(clickhouse, message, payload, contents, target)
        return True
    if again:
        _check_stored(clickhouse, message, payload, contents, target)
    return False


def _check_stored(clickhouse: ClickHouse, message: Message, payload: bytes, contents: Contents, target: Target) -> None:
    """Check that each row of a batch is in a table; called where an earlier insert of it ended with an error."""
    if target.servers().are_replicas:
        # They store token and rows in one step. The server that answers may not have received the rows yet.
        return
    missing = set(_positions(payload))
    for table in target.tables():
        found = clickhouse.rows(
            _stored(table, target, contents), parameters=parameters(message, contents), settings=IN_SEQUENCE
        )
        missing.difference_update((int(lsn), int(ordinal)) for lsn, ordinal in found)
    if missing:
        log.error("token_without_rows", table=message.table, rows=len(missing))
        raise EpochOverError(
            f"ClickHouse remembers the token of a batch, but lacks {len(missing)} of its rows", todo=_COMPARE
        )


def _stored_positions(
    clickhouse: ClickHouse, table: str, target: Target, message: Message, contents: Contents
) -> set[tuple[int, int]]:
    """Return the positions in the range of a batch that a table has."""
    bound = parameters(message, contents)
    found = clickhouse.rows(_stored(table, target, contents), parameters=bound, settings=IN_SEQUENCE)
    return {(int(lsn), int(ordinal)) for lsn, ordinal in found}


def _complete(clickhouse: ClickHouse, message: Message, payload: bytes, contents: Contents, target: Target) -> None:
    """Complete a batch of which rows are stored or set aside."""
    bound, own = parameters(message, contents), batch_number(message)
    rows = _positions(payload)
    asked = _stored(target.events, target, contents, "cdc_batch")
    found = clickhouse.rows(asked, parameters=bound, settings=IN_SEQUENCE)
    stored = {(int(lsn), int(ordinal)): int(batch) for lsn, ordinal, batch in found}
    aside: set[tuple[int, int]] = set()
    if target.letters:
        aside = _stored_positions(clickhouse, target.letters, target, message, contents)
    here = {stored[row] for row in rows if row in stored}
    log.info("batch_completed", batch=own, rows=len(rows), stored=sum(row in stored for row in rows), by=sorted(here))
    if here <= {own} and aside.isdisjoint(rows):
        _send_again(clickhouse, message, payload, contents, target, is_whole=all(row in stored for row in rows))
    elif target.letters:
        # Another task of this batch is setting rows aside, or died of it. Its inserts may still run.
        raise EpochOverError("other tasks have stored parts of this batch")
    else:
        # A letter is a batch of one row, and was stored under an older epoch.
        for batch in sorted(here - {0}):
            settings_ = _settings_of(message, target, batch)
            push_again(
                clickhouse,
                target.events,
                target.view_gaps,
                target.guard,
                batch,
                bound,
                settings_,
                servers=target.servers(),
            )


def _send_again(
    clickhouse: ClickHouse, message: Message, payload: bytes, contents: Contents, target: Target, *, is_whole: bool
) -> None:
    """Send a batch of which rows are stored; the tokens of the table and of each view decide what is missing."""
    condition = _refuse(target, contents, by_others=True)
    condition += "\n" + query("refuse_old", table=target.events)
    condition += "\n" + query("refuse_noted", view_gaps=target.view_gaps)
    try:
        _send(clickhouse, message, payload, contents, target, condition, memory(clickhouse, target.events))
    except FatalError as error:
        if is_thrown(error, STORED_ALREADY):
            raise EpochOverError("other tasks have stored parts of this batch") from error
        if is_thrown(error, NOTED):
            return
        if not is_thrown(error, FORGOTTEN):
            raise
        if not is_whole:
            raise EpochOverError(
                "rows of a batch were stored long ago, and others are missing", todo=_COMPARE
            ) from error
        log.warning("views_not_completed", table=target.events, rows=message.rows, todo=_COMPARE)
        return
    _check_stored(clickhouse, message, payload, contents, target)


def _send(
    clickhouse: ClickHouse,
    message: Message,
    payload: bytes,
    contents: Contents,
    target: Target,
    condition: str,
    more: Mapping[str, int] = _NONE,
) -> None:
    begun_at = time.monotonic()
    try:
        clickhouse.command(
            statement(message.table, target, contents, condition),
            parameters=parameters(message, contents) | dict(more),
            settings=settings(message, target),
            data=payload,
        )
    finally:
        metrics.inserted(time.monotonic() - begun_at)


def _positions(payload: bytes) -> list[tuple[int, int]]:
    stream = pa.ipc.open_stream(payload)
    options = pa.ipc.IpcReadOptions(included_fields=[stream.schema.get_field_index(name) for name in _POSITION])
    read = pa.ipc.open_stream(payload, options=options).read_all()
    return list(zip(*(read.column(name).to_pylist() for name in _POSITION), strict=True))


def _refuse(target: Target, contents: Contents, *, by_others: bool = False) -> str:
    """Return the condition that refuses a batch with a stored position; `by_others` allows rows of the same batch."""
    conditions = (_BY_OTHERS if by_others else "", "")
    return "\n".join(
        query("refuse_stored", stored=_stored(table, target, contents, also=also))
        for table, also in zip(target.tables(), conditions, strict=False)
    )


def _leave_out(tables: Iterable[str], target: Target, contents: Contents) -> str:
    """Return the condition that leaves out rows that are stored in one of the tables."""
    return "\n".join(query("leave_out_stored", stored=_stored(table, target, contents)) for table in tables)


def _stored(table: str, target: Target, contents: Contents, *more: str, also: str = "") -> str:
    # Only the table of events has the times of a batch of events, and only such a batch has a range of times.
    when = _WITHIN_TIMES if table == target.events and contents.from_us is not None else ""
    return query("stored_within", table=table, when=f"{when} {also}", more="".join(f", {name}" for name in more))


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


def statement(table: str, target: Target, contents: Contents, condition: str) -> str:
    """Return the INSERT into `table` of rows with these contents, with a condition on what is stored."""
    schema = contents.schema
    names = [clickhouse_identifier(field.name) for field in schema]
    expressions = [_EXPRESSIONS.get(field.name, name) for field, name in zip(schema, names, strict=True)]
    structure = ", ".join(f"{name} {_input_type(field)}" for field, name in zip(schema, names, strict=True))
    own = {"cdc_source": "{source:String}"}
    if table != target.letters:
        own["cdc_batch"] = "{batch:UInt64}"
    return query(
        "insert",
        table=table,
        fence=target.guard,
        columns=", ".join([*names, *own]),
        expressions=", ".join([*expressions, *own.values()]),
        structure=clickhouse_literal(structure),
        unless_stored=condition,
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
        "batch": batch_number(message),
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


def batch_number(message: Message) -> int:
    """Return the number of a batch in `cdc_batch`: 64 bits of a hash of its token and its owner's epoch, never 0.

    A reader begins to cut batches after all inserts of older epochs have ended, and may cut the same batch as its
    predecessor. With epoch and owner in it, the number is new: tokens of older epochs do not suppress this insert.
    """
    name = f"{message.source}\n{message.token}\n{message.epoch}\n{message.owner}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) or 1


def settings(message: Message, target: Target) -> dict[str, Any]:
    """Return the settings that make the insert atomic, synchronous, deduplicated, limited in time, and identifiable."""
    return _settings_of(message, target, batch_number(message)) | {
        "materialized_views_ignore_errors": int(target.ignore_view_errors)
    }


def _settings_of(message: Message, target: Target, batch: int) -> dict[str, Any]:
    return batch_settings(message.source, batch, mark(message.fence), target.timeout_s)

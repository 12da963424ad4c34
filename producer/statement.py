"""Events and what is known of the table -> the statements that write them, and from the answers which were new.

Pure: a generator says what it wants to ask and is sent the answer; who asks, and whether it waits or awaits, is not its
business. So every way into the outbox has the same statements.

Source: https://www.postgresql.org/docs/current/sql-insert.html#SQL-ON-CONFLICT
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from outhaul.errors import EventError
from outhaul.event import check_name

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, MutableMapping, Sequence

    from outhaul.event import Event

    Writing: TypeAlias = Generator["Query", Sequence[Sequence[Any]], list[bool]]

_PUBLICATION = re.compile(r"[a-z0-9_]{1,63}")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
# Bounds of one statement, so that of its memory here and in the server. Larger ones are no faster.
_PIECE_EVENTS, _PIECE_CHARACTERS = 1000, 4 << 20

_TEXT = "CAST(%s AS text)"
_TEXTS = "CAST(CAST(%s AS text) AS text[])"

_CASTS = {
    "event_date_time": "coalesce(CAST({} AS timestamptz), now())",
    "event_context": "CAST({} AS jsonb)",
    "metadata_version": "CAST({} AS bigint)",
}
# Half of a surrogate pair, which is in no text that was checked.
_NULL = "\ud800"
# Columns of which the events of one call often have the same value.
_SHARED = {"event_type", "environment", "metadata_version", "event_date_time"}

# Reads catalogues only, which everybody may. A unique index serves ON CONFLICT where it is over this one column,
# whole and not deferrable.
_LOOK = """
    SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = found.id AND attname = 'event_key' AND NOT attisdropped),
           EXISTS (SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
                   WHERE indrelid = found.id AND attname = 'event_key' AND indnkeyatts = 1
                     AND indisunique AND indisvalid AND indimmediate AND indpred IS NULL),
           EXISTS (SELECT FROM pg_attribute WHERE attrelid = found.id AND attname = 'traceparent' AND NOT attisdropped)
    FROM (SELECT to_regclass(CAST(%s AS text)) AS id) AS found
    WHERE found.id IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with parameters at `%s`, all of them text; `returns` says whether its rows are wanted."""

    sql: str
    parameters: tuple[str, ...]
    returns: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """Which of the columns that an outbox need not have it has."""

    has_key: bool
    is_key_unique: bool
    has_traceparent: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where events go.

    `table` is `outbox` or `schema.outbox`; `environment` that of events that name none. `via="wal"` writes events into
    Postgres' log alone, where the reader of `publication` finds them: no table is asked, and there are no keys.
    """

    table: str = "outbox"
    environment: str | None = None
    via: Literal["table", "wal"] = "table"
    publication: str = "outhaul"

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            EventError: one of them will not do.
        """
        parts = self.table.split(".") if isinstance(self.table, str) else []
        if not 1 <= len(parts) <= 2 or not all(parts) or "\0" in self.table:  # noqa: PLR2004 - schema and name
            raise EventError(f"table must be like outbox or schema.outbox, got {self.table!r}")
        if self.environment is not None:
            check_name("environment", self.environment)
        if self.via not in {"table", "wal"}:
            raise EventError(f"via must be 'table' or 'wal', got {self.via!r}")
        if not isinstance(self.publication, str) or not _PUBLICATION.fullmatch(self.publication):
            raise EventError(f"publication must be of lower-case letters, digits and underscores: {self.publication!r}")

    @property
    def quoted(self) -> str:
        """The table's name as SQL has it."""
        return ".".join('"' + part.replace('"', '""') + '"' for part in self.table.split("."))


def writing(
    events: Iterable[Event],
    target: Target,
    known: MutableMapping[str, Shape],
    trace: str | None,
    *,
    is_unicode: bool = True,
) -> Writing:
    """Ask for all that writes these events; return for each whether it is new.

    Args:
        events: all of them are checked before the first statement.
        target: where they go.
        known: shapes of tables that this connection has seen, filled on the way. Nobody asks for a shape while no event
            has a key and no trace runs.
        trace: traceparent of events that have none of their own, where the table has a column for it.
        is_unicode: the connection carries every character; where it does not, contexts are escaped.

    Raises:
        EventError: an event has no environment, or has what the table has no column for.
    """
    batch = list(events)
    for event in batch:
        if event.environment is None and target.environment is None:
            raise EventError("the event has no environment: give it one, or make one Outbox(environment=…) for all")
    if target.via == "wal":
        return (yield from _emitting(batch, target, trace, is_unicode=is_unicode))
    is_keyed = any(event.key is not None for event in batch)
    is_traced = any(event.traceparent is not None for event in batch)
    if is_keyed or is_traced or trace:
        shape = yield from _looking(target, known, is_keyed=is_keyed, is_traced=is_traced)
        trace = trace if shape.has_traceparent else None
    firsts = list(_firsts(batch))
    new_keys: set[str] = set()
    for piece in _pieces([event for event, is_first in zip(batch, firsts, strict=True) if is_first]):
        columns = _columns(piece, target, trace, is_unicode=is_unicode)
        answer = yield _insert(target, columns)
        new_keys.update(row[0] for row in answer)
    return [
        is_first and (event.key is None or event.key in new_keys) for event, is_first in zip(batch, firsts, strict=True)
    ]


def _emitting(batch: Sequence[Event], target: Target, trace: str | None, *, is_unicode: bool) -> Writing:
    """Write into the log alone; all are new, since nobody could say of a key whether it was there."""
    if any(event.key is not None for event in batch):
        raise EventError("an event that goes into the log alone cannot have a key: there is no table to look it up in")
    # A publication's name is checked; it stands in the statement so that the parameters are events, as elsewhere.
    sql = f"""
        SELECT pg_logical_emit_message(true, '{target.publication}', message)
        FROM unnest({_TEXTS}) AS message"""  # noqa: S608
    for piece in _pieces(batch):
        messages = [_message(event, target, trace) for event in piece]
        yield Query(sql, (_array(messages if is_unicode else map(_as_ascii, messages)),), returns=False)
    return [True] * len(batch)


def _message(event: Event, target: Target, trace: str | None) -> str:
    """Return what the reader takes for a row: members are named as the table's columns."""
    row: dict[str, Any] = {
        "event_type": event.type,
        "environment": event.environment or target.environment,
        "metadata_version": event.version,
    }
    if event.at is not None:
        row["event_date_time"] = event.at.astimezone(UTC).isoformat()
    if traceparent := event.traceparent or trace:
        row["traceparent"] = traceparent
    return f'{json.dumps(row, ensure_ascii=False)[:-1]},"event_context":{event.context_json}}}'


def _as_ascii(text: str) -> str:
    """Return JSON text that any encoding of a connection can carry."""
    return _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _looking(
    target: Target, known: MutableMapping[str, Shape], *, is_keyed: bool, is_traced: bool
) -> Generator[Query, Sequence[Sequence[Any]], Shape]:
    shape = known.get(target.table)
    # What was lacking a while ago may have been added since.
    if shape is None or (is_keyed and not shape.is_key_unique) or (is_traced and not shape.has_traceparent):
        answer = yield Query(_LOOK, (target.quoted,), returns=True)
        if not answer:
            # No such table: Postgres says so better when it is written to.
            return Shape(has_key=is_keyed, is_key_unique=is_keyed, has_traceparent=is_traced)
        shape = known[target.table] = Shape(*answer[0])
    if is_keyed and not shape.has_key:
        raise EventError(
            f"{target.table} has no column for keys: ALTER TABLE {target.quoted} ADD COLUMN event_key text UNIQUE"
        )
    if is_keyed and not shape.is_key_unique:
        raise EventError(
            f"event_key of {target.table} is not unique: ALTER TABLE {target.quoted} ADD UNIQUE (event_key)"
        )
    if is_traced and not shape.has_traceparent:
        raise EventError(
            f"{target.table} has no column for traces: ALTER TABLE {target.quoted} ADD COLUMN traceparent text"
        )
    return shape


def _insert(target: Target, columns: Mapping[str, Sequence[str | None]]) -> Query:
    """Return the INSERT: what all of its events share stands in it once, the rest comes in an array for each column.

    Postgres takes an array apart in half the time that it needs for JSON.
    """
    shared = {name: column[0] for name, column in columns.items() if name in _SHARED and len(set(column)) == 1}
    shared_texts = [text for text in shared.values() if text is not None]
    arrays = {name: column for name, column in columns.items() if name not in shared}
    values = (_CASTS.get(name, "{}").format(_TEXT if name in shared else name) for name in columns)
    is_keyed = "event_key" in columns
    # With a target: without one, a sequence that was set back would make events vanish without a word.
    ends = "ON CONFLICT (event_key) DO NOTHING RETURNING event_key" if is_keyed else ""
    sql = f"""
        INSERT INTO {target.quoted.replace("%", "%%")} ({", ".join(columns)})
        SELECT {", ".join(values)}
        FROM unnest({", ".join([_TEXTS] * len(arrays))}) AS event ({", ".join(arrays)})
        {ends}"""  # noqa: S608 - the name is quoted, all else is fixed
    return Query(sql, (*shared_texts, *map(_array, arrays.values())), returns=is_keyed)


def _columns(
    events: Sequence[Event], target: Target, trace: str | None, *, is_unicode: bool
) -> dict[str, Sequence[str | None]]:
    """Return the columns that some of the events have; the others have their defaults, as they would have alone."""
    columns: dict[str, Sequence[str | None]] = {
        "event_type": [event.type for event in events],
        "environment": [event.environment or target.environment for event in events],
        "event_context": [event.context_json if is_unicode else _as_ascii(event.context_json) for event in events],
        "metadata_version": [str(event.version) for event in events],
    }
    times = [None if event.at is None else event.at.astimezone(UTC).isoformat() for event in events]
    keys = [event.key for event in events]
    traces = [event.traceparent or trace for event in events]
    found = (("event_date_time", times), ("event_key", keys), ("traceparent", traces))
    return columns | {name: column for name, column in found if any(column)}


def _array(texts: Iterable[str | None]) -> str:
    """Return an array as Postgres reads it; a driver would put it together value by value, which takes much longer.

    No text has a NUL in it, so one stands between them until all are escaped.
    """
    elements = [_NULL if text is None else text for text in texts]
    escaped = "\0".join(elements).replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{escaped}"}}'.replace(f'"{_NULL}"', "NULL")


def _firsts(events: Iterable[Event]) -> Iterator[bool]:
    """Tell for each event whether none before it has its key."""
    seen: set[str] = set()
    for event in events:
        yield event.key not in seen
        if event.key is not None:
            seen.add(event.key)


def _pieces(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Cut a batch within the bounds of a statement."""
    first, characters = 0, 0
    for at, event in enumerate(events):
        size = len(event.context_json)
        if at > first and (at - first == _PIECE_EVENTS or characters + size > _PIECE_CHARACTERS):
            yield events[first:at]
            first, characters = at, 0
        characters += size
    if first < len(events):
        yield events[first:]

"""Events and the shape of their table -> the statements that write them, and which of the events are new.

Pure: a generator yields each statement and is sent the rows of its result. The caller executes the statement, sync or
async. So psycopg, SQLAlchemy and Django send the same statements.

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

    Queries: TypeAlias = Generator["Query", Sequence[Sequence[Any]], list[bool]]

# A part of a table's name: as it is, or in double quotes, if it has dots, quotes, or blanks at an end.
_PART = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^".\s][^.]*?))\s*(\.|\Z)')
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
# Limits of one statement; they bound its memory in the app and in the server. Larger statements are not faster.
_CHUNK_EVENTS, _CHUNK_CHARACTERS = 1000, 4 << 20

_TEXT = "CAST(%s AS text)"
_TEXTS = "CAST(CAST(%s AS text) AS text[])"

_CASTS = {
    "event_date_time": "coalesce(CAST({} AS timestamptz), now())",
    "event_context": "CAST({} AS jsonb)",
    "metadata_version": "CAST({} AS bigint)",
}
# Stands for NULL in a list of texts. Half of a surrogate pair cannot occur in a text, since `Event` refuses it.
_NULL = "\ud800"
# Columns that often have the same value in all events of one call.
_SHARED = {"event_type", "environment", "metadata_version", "event_date_time"}

# Reads only catalogs, which every role may read. ON CONFLICT can use a unique index that covers exactly this column and
# that is neither partial nor deferrable.
_READ_SHAPE = """
    SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = found.id AND attname = 'event_key' AND NOT attisdropped),
           EXISTS (SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
                   WHERE indrelid = found.id AND attname = 'event_key' AND indnkeyatts = 1
                     AND indisunique AND indisvalid AND indimmediate AND indpred IS NULL),
           EXISTS (SELECT FROM pg_attribute WHERE attrelid = found.id AND attname = 'traceparent' AND NOT attisdropped)
    FROM (SELECT to_regclass(CAST(%s AS text)) AS id) AS found
    WHERE found.id IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with text parameters at `%s`; if `returns` is true, the caller fetches its rows."""

    sql: str
    parameters: tuple[str, ...]
    returns: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """Which optional columns a table has."""

    has_key: bool
    is_key_unique: bool
    has_traceparent: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where events are written.

    Args:
        table: `outbox` or `schema.outbox`; a part that has dots or quotes is written in double quotes.
        environment: for events whose own environment is None.
        via: "table", or "wal" for logical messages, which are only in Postgres' log. Such events cannot have keys.
        publication: whose reader captures the messages; used if `via` is "wal".

    Raises:
        EventError: a setting is invalid.
    """

    table: str = "outbox"
    environment: str | None = None
    via: Literal["table", "wal"] = "table"
    publication: str = "outhaul"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            EventError: one of them is invalid.
        """
        parts = self.parts if isinstance(self.table, str) else ()
        if not 1 <= len(parts) <= 2 or "\0" in self.table:  # noqa: PLR2004 - schema and name
            raise EventError(f"table must be like outbox or schema.outbox, got {self.table!r}")
        if self.environment is not None:
            check_name("environment", self.environment)
        if self.via not in {"table", "wal"}:
            raise EventError(f"via must be 'table' or 'wal', got {self.via!r}")
        if not isinstance(self.publication, str) or not self.publication or "\0" in self.publication:
            raise EventError(f"publication must be the name of a publication, got {self.publication!r}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the table's name: its schema, if it is given, and its own name. No part: it is malformed."""
        parts, at = [], 0
        while match := _PART.match(self.table, at):
            quoted, bare, dot = match.groups()
            parts.append(bare if quoted is None else quoted.replace('""', '"'))
            at = match.end()
            if not dot:
                return tuple(parts)
        return ()

    @property
    def quoted(self) -> str:
        """The table's name, quoted for SQL."""
        return ".".join(map(_quoted, self.parts))

    @property
    def quoted_schema(self) -> str:
        """The name of the table's schema, quoted for SQL: `public` by default."""
        return _quoted(self.parts[-2] if len(self.parts) > 1 else "public")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def write_events(
    events: Iterable[Event],
    target: Target,
    shapes: MutableMapping[str, Shape],
    trace: str | None,
    *,
    is_unicode: bool = True,
) -> Queries:
    """Yield the statements that write these events; return for each event whether it is new.

    Args:
        events: all of them are checked before the first statement.
        target: where they are written.
        shapes: cached shapes, by table, as this connection sees them; added to if needed. A shape is needed if an event
            has a key or a traceparent, or if `trace` is set.
        trace: traceparent for events without their own; used if the table has a column for it.
        is_unicode: the connection's encoding has every character; if not, contexts are escaped to ASCII.

    Raises:
        EventError: an event has no environment, or the table has no column for its key or traceparent.

    Source: https://www.postgresql.org/docs/current/sql-insert.html#SQL-ON-CONFLICT
    """
    batch = list(events)
    for event in batch:
        if event.environment is None and target.environment is None:
            raise EventError("the event has no environment: set one, or use an Outbox(environment=…) for all events")
    if target.via == "wal":
        return (yield from _write_messages(batch, target, trace, is_unicode=is_unicode))
    is_keyed = any(event.key is not None for event in batch)
    is_traced = any(event.traceparent is not None for event in batch)
    if is_keyed or is_traced or trace:
        shape = yield from _checked_shape(target, shapes, is_keyed=is_keyed, is_traced=is_traced)
        trace = trace if shape.has_traceparent else None
    firsts = list(_firsts_of_key(batch))
    new_keys: set[str] = set()
    for chunk in _chunks([event for event, is_first in zip(batch, firsts, strict=True) if is_first]):
        columns = _columns(chunk, target, trace, is_unicode=is_unicode)
        answer = yield _insert(target, columns)
        new_keys.update(row[0] for row in answer)
    return [
        is_first and (event.key is None or event.key in new_keys) for event, is_first in zip(batch, firsts, strict=True)
    ]


def _write_messages(batch: Sequence[Event], target: Target, trace: str | None, *, is_unicode: bool) -> Queries:
    """Yield statements that write logical messages; every event is new, since messages have no keys."""
    if any(event.key is not None for event in batch):
        raise EventError("an event with via='wal' cannot have a key: it has no table in which to look the key up")
    sql = f"SELECT pg_logical_emit_message(true, {_TEXT}, message) FROM unnest({_TEXTS}) AS message"  # noqa: S608 - fixed
    for chunk in _chunks(batch):
        messages = [_message(event, target, trace) for event in chunk]
        texts = _array(messages if is_unicode else map(_as_ascii, messages))
        yield Query(sql, (target.publication, texts), returns=False)
    return [True] * len(batch)


def _message(event: Event, target: Target, trace: str | None) -> str:
    """Return the JSON text that the reader decodes into a row: its members have the names of the table's columns."""
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
    """Return JSON text with all other characters escaped, for connections whose encoding is not Unicode."""
    return _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _checked_shape(
    target: Target, shapes: MutableMapping[str, Shape], *, is_keyed: bool, is_traced: bool
) -> Generator[Query, Sequence[Sequence[Any]], Shape]:
    shape = shapes.get(target.table)
    # A column or index that the cached shape lacks may have been added since.
    if shape is None or (is_keyed and not shape.is_key_unique) or (is_traced and not shape.has_traceparent):
        answer = yield Query(_READ_SHAPE, (target.quoted,), returns=True)
        if not answer:
            # The table does not exist. Let the INSERT fail: Postgres' message is clearer.
            return Shape(has_key=is_keyed, is_key_unique=is_keyed, has_traceparent=is_traced)
        shape = shapes[target.table] = Shape(*answer[0])
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
    """Return the INSERT. A value that all events share is one parameter; each other column is one array parameter.

    Postgres unnests an array in half the time that it needs for JSON.
    """
    shared = {name: column[0] for name, column in columns.items() if name in _SHARED and len(set(column)) == 1}
    shared_texts = [text for text in shared.values() if text is not None]
    arrays = {name: column for name, column in columns.items() if name not in shared}
    values = (_CASTS.get(name, "{}").format(_TEXT if name in shared else name) for name in columns)
    is_keyed = "event_key" in columns
    # ON CONFLICT names its column. If it did not, a sequence that was set back would silently discard events.
    ends = "ON CONFLICT (event_key) DO NOTHING RETURNING event_key" if is_keyed else ""
    sql = f"""
        INSERT INTO {target.quoted.replace("%", "%%")} ({", ".join(columns)})
        SELECT {", ".join(values)}
        FROM unnest({", ".join([_TEXTS] * len(arrays))}) AS event ({", ".join(arrays)})
        {ends}"""  # noqa: S608 - the table's name is quoted, the rest is fixed
    return Query(sql, (*shared_texts, *map(_array, arrays.values())), returns=is_keyed)


def _columns(
    events: Sequence[Event], target: Target, trace: str | None, *, is_unicode: bool
) -> dict[str, Sequence[str | None]]:
    """Return the columns that at least one event sets; Postgres fills the other columns with their defaults."""
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
    """Return the literal of a Postgres array. A driver would build it value by value, which takes much longer.

    The texts contain no NUL, so NUL separates them while all of them are escaped in one pass.

    Source: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    """
    elements = [_NULL if text is None else text for text in texts]
    escaped = "\0".join(elements).replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{escaped}"}}'.replace(f'"{_NULL}"', "NULL")


def _firsts_of_key(events: Iterable[Event]) -> Iterator[bool]:
    """Yield for each event whether it is the first with its key."""
    seen: set[str] = set()
    for event in events:
        yield event.key not in seen
        if event.key is not None:
            seen.add(event.key)


def _chunks(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Yield a batch in chunks within the limits of one statement."""
    first, characters = 0, 0
    for at, event in enumerate(events):
        size = len(event.context_json)
        if at > first and (at - first == _CHUNK_EVENTS or characters + size > _CHUNK_CHARACTERS):
            yield events[first:at]
            first, characters = at, 0
        characters += size
    if first < len(events):
        yield events[first:]

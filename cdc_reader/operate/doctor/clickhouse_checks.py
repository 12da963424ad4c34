"""Settings -> version, grants and tables of ClickHouse, and the findings about them.

Edge: reads only.

Source: https://clickhouse.com/docs/operations/system-tables
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from outhaul.cdc_reader.capture.binary_cells import FIRST_DAY, LAST_DAY, POSTGRES_EPOCH_DAYS
from outhaul.cdc_reader.operate.doctor import clickhouse_grants, clickhouse_tables, view_checks
from outhaul.cdc_reader.operate.doctor.clock_offsets import Offset, measured
from outhaul.cdc_reader.operate.doctor.column_match import StoredColumn
from outhaul.cdc_reader.operate.doctor.finding import Finding, broken, fine
from outhaul.cdc_reader.postgres.preflight import clickhouse_unreachable
from outhaul.sink import schema, trial
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.clickhouse_errors import ACCESS_DENIED
from outhaul.sink.errors import PipelineError, TransientError
from outhaul.sink.fence import Epoch, list_running, newest_epoch_here
from outhaul.sink.replicas import find_servers
from outhaul.sink.sql import query
from outhaul.sink.views import views_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.sink.replicas import Servers
    from outhaul.sink.settings import Outbox, Settings, Stream
    from outhaul.sink.views import View

_ANSWER_S = 5
_SYNTAX_ERROR = 62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The first and the last time that the reader sends to ClickHouse; others become dead letters.
_ENDS = (
    _EPOCH + timedelta(days=POSTGRES_EPOCH_DAYS + FIRST_DAY),
    _EPOCH + timedelta(days=POSTGRES_EPOCH_DAYS + LAST_DAY + 1) - _MICROSECOND,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """The tables, if all of them exist."""

    events: schema.Table
    letters: schema.Table
    columns: tuple[StoredColumn, ...]
    parts: clickhouse_tables.Parts | None
    servers: Servers | PipelineError | None
    ends: dict[str, str]
    dead_letters: int | None
    epoch: Epoch | None
    # Another source in the table, if a merge could take its rows for copies of this source.
    other_source: str = ""
    views: tuple[View, ...] = ()


@dataclass(frozen=True, slots=True)
class ClickHouseFacts:
    """All answers; `stored` is an error if a table is missing."""

    version: str
    rights: clickhouse_grants.Rights
    stored: Stored | PipelineError
    clock: Offset
    # What each trial has found, or its error. They are run with the first outbox only, for the whole pipeline.
    trials: dict[str, str | PipelineError] = field(default_factory=dict)


def ask(stream: Stream, outboxes: Sequence[Outbox]) -> ClickHouseFacts:
    """Ask about the tables of these outboxes; about those of the first one, in detail.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    try:
        with ClickHouse.of(stream.settings, timeout_s=_ANSWER_S) as clickhouse:
            names = schema.table_names(stream.settings, outboxes)
            version = clickhouse.rows("SELECT version()")[0][0]
            clock = measured(lambda: float(clickhouse.rows("SELECT toUnixTimestamp64Micro(now64(6)) / 1e6")[0][0]))
            stored = _stored(clickhouse, stream, outboxes)
            is_first = outboxes[0] == stream.settings.outboxes()[0]
            trials = trial.results(clickhouse, stream.settings) if is_first and isinstance(stored, Stored) else {}
            return ClickHouseFacts(version, _rights(clickhouse, names, outboxes), stored, clock, trials)
    except TransientError as error:
        raise clickhouse_unreachable(error) from error


def judge(facts: ClickHouseFacts, settings: Settings) -> Iterator[Finding]:
    """Judge all answers."""
    yield clickhouse_tables.version(facts.version, settings.context_type)
    yield from clickhouse_grants.judge(facts.rights)
    stored = facts.stored
    if isinstance(stored, PipelineError):
        yield broken("tables", stored)
        return
    yield from clickhouse_tables.engines(stored.events, stored.letters, settings, stored.other_source)
    if stored.servers is not None:
        yield clickhouse_tables.replicas(stored.servers)
    yield from view_checks.judge(stored.views, stored.events, settings)
    yield clickhouse_tables.parts(stored.parts)
    if stored.ends:
        kind = next(column.type for column in stored.columns if column.name == "event_date_time")
        yield clickhouse_tables.time_range(kind, stored.ends)
    failed = {name: found for name, found in facts.trials.items() if isinstance(found, PipelineError)}
    yield from (broken(f"trial of {name}", error) for name, error in failed.items())
    if facts.trials and not failed:
        yield fine("trials", f"all {len(facts.trials)} pass")
    yield clickhouse_tables.dead_letters(stored.dead_letters, stored.letters.name)


def granted(clickhouse: ClickHouse, privilege: str, on: str) -> bool | None:
    """Tell whether the user has a privilege on a quoted table; None if the server is too old for CHECK GRANT.

    Raises:
        PipelineError: ClickHouse does not answer.
    """
    try:
        return bool(clickhouse.rows(f"CHECK GRANT {privilege} ON {on}")[0][0])
    except PipelineError as error:
        if error.code == _SYNTAX_ERROR:
            return None
        raise


def _rights(clickhouse: ClickHouse, names: Sequence[str], outboxes: Sequence[Outbox]) -> clickhouse_grants.Rights:
    user, database, readonly = clickhouse.rows("SELECT currentUser(), currentDatabase(), getSetting('readonly')")[0]
    wanted = clickhouse_grants.wanted(names, [outbox.clickhouse_table for outbox in outboxes])
    return clickhouse_grants.Rights(
        user,
        database,
        bool(readonly),
        {right: granted(clickhouse, right[0], clickhouse_grants.object_of(right)) for right in wanted},
    )


def _stored(clickhouse: ClickHouse, stream: Stream, outboxes: Sequence[Outbox]) -> Stored | PipelineError:
    names = schema.table_names(stream.settings, outboxes)
    found = schema.tables(clickhouse, names)
    for name in names:
        if name not in found:
            return schema.missing(name, clickhouse)
    events, letters = (found[name] for name in schema.batch_tables(outboxes[0]))
    columns = clickhouse.rows(
        "SELECT name, type, default_kind FROM system.columns "
        "WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
        parameters={"table": events.name},
    )
    stored = tuple(StoredColumn(*row) for row in columns)
    return Stored(
        events,
        letters,
        stored,
        _parts(clickhouse, events),
        _servers(clickhouse, stream.settings) if events.is_replicated else None,
        _ends(clickhouse, stored),
        _dead_letters(clickhouse, outboxes[0]),
        _epoch(clickhouse, stream),
        schema.other_source(clickhouse, outboxes[0], events),
        views_of(clickhouse, events.name),
    )


def _parts(clickhouse: ClickHouse, events: schema.Table) -> clickhouse_tables.Parts | None:
    rows = _visible(clickhouse, query("parts"), table=events.name)
    if rows is None:
        return None
    most, delay_at, throw_at = rows[0]
    return clickhouse_tables.Parts(
        int(most or 0),
        events.setting("parts_to_delay_insert", int(delay_at)),
        events.setting("parts_to_throw_insert", int(throw_at)),
    )


def _servers(clickhouse: ClickHouse, settings: Settings) -> Servers | PipelineError:
    """Return the servers that have replicas, if running inserts can be listed on all of them; else the error."""
    try:
        servers = find_servers(clickhouse, settings)
        list_running(clickhouse, settings, None, servers)
    except PipelineError as error:
        return error
    return servers


def _ends(clickhouse: ClickHouse, columns: Sequence[StoredColumn]) -> dict[str, str]:
    """Return how ClickHouse stores the first and the last time, by the time sent; empty if events have only dates."""
    kind = next((column.type for column in columns if column.name == "event_date_time"), "")
    return {_text(end): _end(clickhouse, kind, end) for end in _ENDS} if "DateTime" in kind else {}


def _end(clickhouse: ClickHouse, kind: str, moment: datetime) -> str:
    microseconds = (moment - _EPOCH) // _MICROSECOND
    try:
        return str(clickhouse.rows(query("stored_time", type=kind), parameters={"us": microseconds})[0][0])
    except PipelineError as error:
        if error.code is None:
            raise
        return f"an error (code {error.code})"


def _text(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(" ", "microseconds")


def _dead_letters(clickhouse: ClickHouse, outbox: Outbox) -> int | None:
    rows = _visible(
        clickhouse,
        query("letters_total", dead_letters=outbox.dead_letters_table, where="true"),
        source=outbox.settings.source,
    )
    return None if rows is None else int(rows[0][0])


def _epoch(clickhouse: ClickHouse, stream: Stream) -> Epoch | None:
    try:
        return newest_epoch_here(clickhouse, stream.settings, stream.lane)
    except PipelineError as error:
        if error.code == ACCESS_DENIED:
            return None
        raise


def _visible(clickhouse: ClickHouse, text: str, **parameters: Any) -> Sequence[Sequence[Any]] | None:
    """Return the rows of a query, or None if the user lacks the privilege for it."""
    try:
        return clickhouse.rows(text, parameters=parameters)
    except PipelineError as error:
        if error.code == ACCESS_DENIED:
            return None
        raise

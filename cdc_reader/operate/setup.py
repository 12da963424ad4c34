"""Settings -> table, publication, slot, roles and ClickHouse tables exist.

Edge: applies the files of `sql/`, in their order; all of them are idempotent. Existing objects are not changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from outhaul.cdc_reader.outbox.heal_due import note_due
from outhaul.cdc_reader.postgres.connect import check_stream, connect_primary, connect_stream, has_stream_dsn
from outhaul.cdc_reader.postgres.errors import LockedError, NotAllowedError, SlowError
from outhaul.cdc_reader.postgres.outbox_checks import check_outboxes
from outhaul.cdc_reader.postgres.preflight import Server, check_server, check_shards, check_slot
from outhaul.cdc_reader.postgres.provider import SELF_RUN, provider_of
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.cdc_reader.slots.change import CREATES_WITHIN_S, restart
from outhaul.cdc_reader.slots.create import create
from outhaul.sink import schema
from outhaul.sink.errors import FatalError, PipelineError
from outhaul.sink.fence import newest_epoch
from outhaul.sink.position import NO_LSN
from outhaul.sink.quoting import postgres_identifier, postgres_literal
from outhaul.sink.sql import MARK, names, number_in, schema_number, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outhaul.cdc_reader.postgres.provider import Provider
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.settings import Outbox, Settings, Stream

_OF_EACH_TABLE = {"postgres/0001_outbox.sql", "postgres/0002_publication.sql", "postgres/0004_roles.sql"}

_SLOT = "postgres/0003_slot.sql"
_CONNECT_S = "5"
_OF_EACH_STREAM = {"postgres/0002_publication.sql", _SLOT, f"postgres/9999_{MARK}"}
# All pipelines of this database, since they share roles and functions.
_APPLIED: LiteralString = "SELECT obj_description(oid, 'pg_publication') AS said FROM pg_publication"
# A table that somebody has locked is named after this time; until then, apps that write to it queue behind `setup`.
_LOCK_TIMEOUT: LiteralString = "SET lock_timeout = '10s'"


def postgres_ddl(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield (file name, statements) for Postgres, in order; repeated for each captured table and each shard."""
    for name in names("postgres"):
        for stream in settings.streams()[: None if name in _OF_EACH_STREAM else 1]:
            for outbox in settings.outboxes()[: None if name in _OF_EACH_TABLE else 1]:
                yield name, _statement(name, stream, outbox)


def _statement(name: str, stream: Stream, outbox: Outbox) -> str:
    # Quotes of the files' blocks that no name has.
    unlike = ""
    while any(f"{unlike}$" in text for text in (outbox.table, stream.publication)):
        unlike += "_"
    return statement(
        name,
        unlike=unlike,
        schema=outbox.sql_schema,
        schema_literal=postgres_literal(outbox.sql_schema),
        table=outbox.sql_table,
        table_literal=postgres_literal(outbox.sql_table),
        publication=postgres_identifier(stream.publication),
        publication_literal=postgres_literal(stream.publication),
        row_filter=f" WHERE ({stream.row_condition})" if stream.row_condition else "",
        slot_literal=postgres_literal(stream.slot),
        schema_number=schema_number("postgres"),
    )


def check_not_newer(clickhouse: ClickHouse, settings: Settings) -> None:
    """Check that no newer release has set up either side: this release would undo a part of its files.

    Raises:
        FatalError: a newer release has; nothing was changed.
        PipelineError: a server refuses or does not answer.
    """
    with connect_primary(settings) as conn:
        comments = conn.fetch(_APPLIED)
    applied = {
        "postgres": max((number_in(row["said"]) for row in comments), default=0),
        "clickhouse": schema.applied(clickhouse, settings),
    }
    for folder, name in (("postgres", "Postgres"), ("clickhouse", "ClickHouse")):
        ours = schema_number(folder)
        if applied[folder] > ours:
            raise FatalError(
                f"{name} was set up by a newer outhaul, up to sql/{folder}/{applied[folder]:04}; this release ends at "
                f"{ours:04}, and has changed nothing",
                todo="Type `outhaul setup` of the newer release; readers and workers of this release may keep running",
            )


def print_sql(settings: Settings, cluster: str = "") -> Iterator[str]:
    """Yield the SQL for a DBA to apply with psql and clickhouse-client; `cluster` names a ClickHouse cluster."""
    yield "".join(f"-- {line}\n" for line in _hints(settings))
    for name, text in [*postgres_ddl(settings), *schema.ddl(settings, cluster)]:
        yield f"-- {name}\n{text.strip()}\n"


def _hints(settings: Settings) -> Iterator[str]:
    """Yield what the server of the slot needs beside the SQL; those of a server without a provider if it is unknown."""
    provider = SELF_RUN
    try:
        with connect_stream(settings, connect_timeout=_CONNECT_S) as conn:
            provider = provider_of(conn)
    except PipelineError as error:
        yield f"Postgres does not answer, so a provider's own steps are unknown ({error.message})"
    if provider.name:
        yield f"This server is run by {provider.name}: {provider.page}"
    yield f"If wal_level is not logical: {provider.make_logical()}"
    yield f"The reader's login must be able to replicate: {provider.grant('your_reader')}"
    if warning := provider.slot_warning(heals=settings.heal == "auto"):
        yield warning


def apply_postgres(settings: Settings, tell: Callable[[str], None], *, without_slots: bool = False) -> None:
    """Create what is missing in Postgres; `tell` gets each file's name and the server's notices.

    Raises:
        PipelineError: Postgres refuses or does not answer, or a slot cannot be streamed from.
    """
    with connect_primary(settings) as conn:
        check_shards(settings, check_server(conn)["version"])
        provider = check_stream(settings, Server(0, provider_of(conn))).provider
        # A table that is there already; one that the files create is as it should be.
        check_outboxes(conn, [outbox.sql_table for outbox in settings.outboxes()])
        conn.on_notice(tell)
        conn.execute(_LOCK_TIMEOUT)
        for name, text in postgres_ddl(settings):
            if name == _SLOT and (without_slots or has_stream_dsn(settings)):
                continue
            try:
                conn.execute(text)
            except PipelineError as error:
                raise _refused(error, name, provider, conn) from error
            tell(name)
    if without_slots:
        return
    if has_stream_dsn(settings):
        _create_slots(settings, tell)
    # A slot that was there before may be of another kind.
    with connect_stream(settings) as conn:
        for stream in settings.streams():
            check_slot(conn, stream)
    if warning := provider.slot_warning(heals=settings.heal == "auto"):
        tell(warning)


def _refused(error: PipelineError, name: str, provider: Provider, conn: Connection) -> PipelineError:
    todo = error.todo
    if isinstance(error, NotAllowedError):
        todo = "Run `outhaul setup` as a role that may, or give your DBA what `outhaul setup --print-sql` prints"
        if name == _SLOT:
            todo = f"{provider.grant(conn.fetch_value('SELECT current_user::text'))}. {todo}"
    elif isinstance(error, LockedError | SlowError):
        todo = "Another session may keep a lock on the table (pg_locks); then run `outhaul setup` again"
    return type(error)(f"{name}: {error.message}", todo=todo, exit_code=error.exit_code)


def _create_slots(settings: Settings, tell: Callable[[str], None]) -> None:
    """Create the slots on the server of OUTHAUL_STREAM_DSN; on a standby that needs connections to both servers."""
    for stream in settings.streams():
        with connect_stream(settings) as conn:
            is_there = slot_facts(conn, stream) is not None
        if is_there:
            tell(f"replication slot {stream.slot} already exists")
        else:
            with create(stream, within_s=CREATES_WITHIN_S, waiting=lambda: tell("waiting for open transactions")):
                pass
        tell(_SLOT)


def apply_clickhouse(
    clickhouse: ClickHouse, settings: Settings, tell: Callable[[str], None], *, cluster: str = ""
) -> None:
    """Create what is missing in ClickHouse; on all servers of `cluster`, if given.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    for name, text in schema.ddl(settings, cluster):
        clickhouse.command(text)
        tell(name)


def migrations(clickhouse: ClickHouse, settings: Settings) -> Iterator[str]:
    """Yield, for each table whose merges replace rows, how to make a MergeTree of it.

    Raises:
        PipelineError: ClickHouse refuses or does not answer.
    """
    names = [name for outbox in settings.outboxes() for name in schema.batch_tables(outbox)]
    events = {outbox.clickhouse_table for outbox in settings.outboxes()}
    for table in schema.tables(clickhouse, names).values():
        if table.replaces:
            statements = schema.migration(table, has_batches=table.name in events)
            typed = "\n".join(f"  {text};" for text in statements)
            yield (
                f"{table.name} is a {table.engine}: its merges keep one of the rows with equal ({table.sorting_key}). "
                "New tables are MergeTree, whose merges remove no row. To migrate, stop the readers with SIGTERM, then "
                f"the workers, and type in ClickHouse:\n{typed}"
            )


def note_if_skipping(clickhouse: ClickHouse, settings: Settings) -> None:
    """Note that a heal is due if a pipeline that has run before is about to get a new slot.

    Raises:
        PipelineError: a server refuses or does not answer.
    """
    for stream in settings.streams():
        with connect_stream(settings) as conn:
            is_there = slot_facts(conn, stream) is not None
        if not is_there and newest_epoch(clickhouse, stream.settings, stream.lane) is not None:
            note_due(clickhouse, (stream,), NO_LSN)


def rebind(clickhouse: ClickHouse, settings: Settings) -> str:
    """Record that the source continues in the history that the slot belongs to now; return that as a line of text.

    Raises:
        FatalError: the slot cannot be used, or positions would be ambiguous; the message says what to do.
        PipelineError: Postgres or ClickHouse refuses or does not answer.
    """
    at = restart(settings.undivided, clickhouse)
    return f"source {settings.source} continues at {at} of this server"

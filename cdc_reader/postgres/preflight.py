"""Settings -> nothing if the three servers are set up correctly, else the error of the first check that fails.

Edge: Postgres by an ordinary connection; Redis and ClickHouse by their own edges. Each failed check says what to do and
has its own exit code. No check changes anything, except for one key in Redis that expires.

Source: https://www.postgresql.org/docs/current/logical-replication-config.html
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

import structlog

from outhaul.cdc_reader.postgres.errors import slot_missing, slot_unusable, table_missing
from outhaul.cdc_reader.postgres.outbox_checks import check_outboxes
from outhaul.cdc_reader.postgres.provider import SELF_RUN, provider_of
from outhaul.cdc_reader.postgres.query import connect
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.sink import schema, trial, view_check
from outhaul.sink.clickhouse import ClickHouse
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.quoting import postgres_identifier
from outhaul.sink.redis.payloads import Payloads
from outhaul.sink.redis_keys import payload_key
from outhaul.sink.stopping import sleep_unless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from outhaul.cdc_reader.postgres.provider import Provider
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.settings import Outbox, Settings, Stream

log = structlog.get_logger("outhaul.preflight")

_T = TypeVar("_T")

_CHECK_TIMEOUT_S = 10
# Pauses between attempts at the checks of a start, in seconds.
_PAUSES_S = (0.3, 1.0)
_OLDEST_VERSION = 140000
_LOGICAL = "logical"
# The first version with row filters, which shards need.
_OLDEST_WITH_SHARDS = 150000
_PRINTED = re.compile(r"::\w+|[()\s]")

_SERVER: LiteralString = """
    SELECT current_setting('server_version_num')::int AS version, current_setting('wal_level') AS wal_level,
           (SELECT setting::int FROM pg_settings WHERE name = 'wal_sender_timeout') AS wal_sender_timeout_ms"""

_TABLES: LiteralString = """
    SELECT to_regclass(name) IS NOT NULL AS is_there, format_type(atttypid, NULL) AS id_type
    FROM unnest(%(tables)s::text[]) WITH ORDINALITY AS wanted (name, number)
        LEFT JOIN pg_attribute ON attrelid = to_regclass(name) AND attname = 'id' AND attnum > 0 AND NOT attisdropped
    ORDER BY number"""
_INTEGERS = {"smallint", "integer", "bigint"}

# Compared by name: a cast to regclass would fail for published tables in schemas that the role may not use.
PUBLICATION: LiteralString = """
    WITH wanted AS (
        SELECT name, nspname AS schemaname, relname AS tablename
        FROM unnest(%(tables)s::text[]) AS name JOIN pg_class ON pg_class.oid = to_regclass(name)
        JOIN pg_namespace ON pg_namespace.oid = relnamespace),
    tables AS (SELECT to_jsonb(t) AS t, schemaname, tablename FROM pg_publication_tables AS t
               WHERE pubname = %(publication)s),
    held AS (SELECT schemaname, tablename FROM tables)
    SELECT pubinsert, pubupdate OR pubdelete OR pubtruncate AS more_than_inserts, puballtables, pubviaroot,
           pubviaroot OR NOT EXISTS (
               SELECT FROM pg_partitioned_table JOIN wanted ON partrelid = to_regclass(name)) AS via_root,
           ARRAY(SELECT name FROM wanted WHERE (schemaname, tablename) NOT IN (TABLE held) ORDER BY name) AS lacking,
           ARRAY(SELECT coalesce(t ->> 'rowfilter', '') FROM tables NATURAL JOIN wanted) AS filters,
           ARRAY(SELECT format('%%I.%%I', schemaname, tablename)
                 FROM (TABLE held EXCEPT SELECT schemaname, tablename FROM wanted) AS t) AS others
    FROM pg_publication WHERE pubname = %(publication)s"""

# Any two committed rows differ in each of these. A deferrable index allows two equal rows until the commit. No NULL
# equals another, so the columns must not be NULL, except for the id: ClickHouse takes no event without one.
UNIQUE_KEYS: LiteralString = """
    SELECT array_agg(attname::text) AS columns
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY ((indkey::int2[])[0:indnkeyatts - 1])
    WHERE indrelid = to_regclass(%(table)s) AND indisunique AND indisvalid AND indimmediate AND indpred IS NULL
        AND indexprs IS NULL
    GROUP BY indexrelid
    HAVING bool_and(attnotnull OR attname = 'id')"""


@dataclass(frozen=True, slots=True)
class Server:
    """What later stages need of Postgres; the timeout is in seconds, 0 if it is off."""

    wal_sender_timeout_s: float
    provider: Provider = SELF_RUN


def check_postgres(stream: Stream) -> Server:
    """Check version, settings, table and publication.

    Raises:
        PipelineError: a check has failed; the error is that of the first one.
    """
    names: dict[str, Any] = {
        "tables": [outbox.sql_table for outbox in stream.settings.outboxes()],
        "publication": stream.publication,
    }
    with connect(stream.settings.postgres_dsn.get_secret_value()) as conn:
        server = check_server(conn)
        check_shards(stream.settings, server["version"])
        tables = conn.fetch(_TABLES, names)
        provider = provider_of(conn)
        for outbox, found in zip(stream.settings.outboxes(), tables, strict=True):
            if not found["is_there"]:
                raise table_missing(outbox.table)
            check_id(outbox.table, found["id_type"])
        check_outboxes(conn, names["tables"])
        publication = conn.fetch_one(PUBLICATION, names)
    check_publication(stream, publication)
    return Server(server["wal_sender_timeout_ms"] / 1000, provider)


def check_id(table: str, id_type: str | None) -> None:
    """Check that the outbox has an integer `id`; ClickHouse would refuse the first event otherwise.

    Raises:
        FatalError: it has another one, or none.
    """
    if id_type not in _INTEGERS:
        found = f"is {id_type}" if id_type else "does not exist"
        raise FatalError(
            f"the outbox {table} needs a column id of type bigint, integer or smallint, but its column id {found}",
            todo="Add a bigint column: ALTER TABLE ... RENAME id TO event_id; ALTER TABLE ... ADD id bigserial",
            exit_code=Exit.TABLE_MISSING,
        )


def check_server(conn: Connection) -> dict[str, Any]:
    """Check that the server is a primary, its version and wal_level; return the settings read.

    Raises:
        FatalError: logical replication is not possible.
    """
    check_primary(conn)
    return check_decodes(conn)


def check_decodes(conn: Connection) -> dict[str, Any]:
    """Check version and wal_level of a server that may be a standby; return the settings read.

    Raises:
        FatalError: logical replication is not possible.
    """
    server = conn.fetch_one(_SERVER) or {}
    check_version(server["version"])
    if server["wal_level"] != _LOGICAL:
        check_wal_level(server["wal_level"], provider_of(conn))
    return server


def is_standby(conn: Connection) -> bool:
    """Tell whether a server is in recovery.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    return bool(conn.fetch_value("SELECT pg_is_in_recovery()"))


def check_primary(conn: Connection) -> None:
    """Check that the server is not a standby.

    Raises:
        TransientError: it is a standby, which may be promoted soon.
        PipelineError: Postgres refuses or does not answer.
    """
    if is_standby(conn):
        raise TransientError(
            f"Postgres at {conn.info.host}:{conn.info.port} is a standby, but outhaul writes its marks to the primary",
            todo="Set OUTHAUL_POSTGRES_DSN to the primary, or to all servers, as in "
            "postgresql://...@one,two/db?target_session_attrs=read-write. To stream from a standby, set "
            "OUTHAUL_STREAM_DSN to it",
            exit_code=Exit.POSTGRES_UNREACHABLE,
        )


def check_version(number: int) -> None:
    """Check `server_version_num`.

    Raises:
        FatalError: the server is too old.
    """
    if number < _OLDEST_VERSION:
        raise FatalError(
            f"Postgres {number // 10000} is too old",
            todo="Use Postgres 14 or later",
            exit_code=Exit.WAL_LEVEL,
        )


def check_shards(settings: Settings, version: int) -> None:
    """Check that the server's version (`server_version_num`) can divide a stream into shards.

    Raises:
        FatalError: it cannot.
    """
    if settings.shards > 1 and version < _OLDEST_WITH_SHARDS:
        raise FatalError(
            f"Postgres {version // 10000} has no row filters, which shards need",
            todo="Use Postgres 15 or later, or OUTHAUL_SHARDS=1",
            exit_code=Exit.WAL_LEVEL,
        )


def check_wal_level(level: str, provider: Provider = SELF_RUN) -> None:
    """Check that wal_level is `logical`.

    Raises:
        FatalError: it is not.
    """
    if level != _LOGICAL:
        raise FatalError(
            f"Postgres runs with wal_level = {level}, which is not enough for logical replication",
            todo=provider.make_logical(),
            exit_code=Exit.WAL_LEVEL,
        )


def check_publication(stream: Stream, publication: dict[str, Any] | None) -> None:
    """Check a row of `PUBLICATION`, None if the publication does not exist.

    Raises:
        FatalError: the publication does not exist, or does not publish exactly the inserts of each outbox.
    """
    name, quoted = stream.publication, postgres_identifier(stream.publication)
    tables = ", ".join(outbox.table for outbox in stream.settings.outboxes())
    if publication is None:
        problem, todo = f"publication {name!r} does not exist", "Create it with `outhaul setup`"
    elif not publication["via_root"]:
        # Checked first: such a publication has the table, but lists only its partitions.
        problem = f"publication {name!r} would publish the partitions of {tables}, not the table"
        todo = f"ALTER PUBLICATION {quoted} SET (publish_via_partition_root = true)"
    elif publication["lacking"]:
        lacking = ", ".join(publication["lacking"])
        problem = f"publication {name!r} does not have {lacking}"
        todo = f"ALTER PUBLICATION {quoted} ADD TABLE {lacking}"
    elif stream.row_condition and not all(_is_filter(stream, found) for found in publication["filters"]):
        problem = f"publication {name!r} has another row filter than its shard: {', '.join(publication['filters'])}"
        todo = f"Create it again: DROP PUBLICATION {quoted}; then `outhaul setup`"
    elif not publication["pubinsert"]:
        problem, todo = (
            f"publication {name!r} publishes no inserts",
            f"ALTER PUBLICATION {quoted} SET (publish = 'insert')",
        )
    elif publication["more_than_inserts"] and any(publication["filters"]):
        # With a row filter, Postgres publishes an UPDATE as an INSERT if the row passes the filter only afterwards.
        problem = (
            f"publication {name!r} publishes updates and has a row filter: a row that an UPDATE makes pass the filter "
            "would be stored as an event, each time"
        )
        todo = f"ALTER PUBLICATION {quoted} SET (publish = 'insert')"
    elif publication["others"]:
        problem = f"publication {name!r} has tables that outhaul does not capture: {', '.join(publication['others'])}"
        others = ", ".join(publication["others"])
        todo = f"ALTER PUBLICATION {quoted} DROP TABLE {others}, or use a separate publication for outhaul"
    else:
        return
    raise FatalError(problem, todo=todo, exit_code=Exit.PUBLICATION_MISSING)


def _is_filter(stream: Stream, found: str) -> bool:
    """Tell whether a row filter is the shard's condition; Postgres adds casts and parentheses when it prints it."""
    return _PRINTED.sub("", found) == _PRINTED.sub("", stream.row_condition)


def check_slot(conn: Connection, stream: Stream) -> None:
    """Check that the slot exists and can be streamed from.

    Raises:
        FatalError: it does not exist, or cannot.
        PipelineError: Postgres refuses or does not answer.
    """
    facts = slot_facts(conn, stream)
    if facts is None:
        raise slot_missing(stream.slot)
    if facts.problem:
        raise slot_unusable(stream.slot, facts.problem, facts.todo)


def unique_keys(conn: Connection, sql_table: str) -> tuple[frozenset[str], ...]:
    """Return the columns of each unique key of a table.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    return tuple(frozenset(row["columns"]) for row in conn.fetch(UNIQUE_KEYS, {"table": sql_table}))


def check_kept_apart(settings: Settings, tables: Mapping[str, schema.Table]) -> None:
    """Check that no merge of ClickHouse can take two events for copies of one.

    Args:
        settings: the pipeline's.
        tables: its tables in ClickHouse, by name.

    Raises:
        FatalError: the merges of a table keep one of the events with equal ids, and ids may be equal.
        PipelineError: Postgres refuses or does not answer.
    """
    doubtful = [outbox for outbox in settings.outboxes() if tables[outbox.clickhouse_table].relies_on_ids]
    if not doubtful:
        return
    with connect(settings.postgres_dsn.get_secret_value()) as conn:
        for outbox in doubtful:
            if why := why_not_apart(tables[outbox.clickhouse_table], outbox, unique_keys(conn, outbox.sql_table)):
                raise FatalError(why, todo=apart_todo(outbox), exit_code=Exit.CLICKHOUSE_TABLE)


def why_not_apart(table: schema.Table, outbox: Outbox, keys: Sequence[frozenset[str]]) -> str:
    """Return why merges may lose events of an outbox with these unique keys; empty if they may not."""
    if table.keeps_apart(keys):
        return ""
    return (
        f"merges of ClickHouse table {table.name!r}, a {table.engine}, keep only one of the events with equal "
        f"({table.sorting_key}), and no unique index of {outbox.table} rules such events out"
    )


def apart_todo(outbox: Outbox) -> str:
    """Return what to do about merges that may take two events of an outbox for copies of one."""
    return f"{schema.MIGRATE}. Or make ids unique: CREATE UNIQUE INDEX CONCURRENTLY ON {outbox.sql_table} (id)"


def check_redis(settings: Settings, payloads: Payloads) -> None:
    """Check that Redis answers, stores a payload, is one server, has all commands, and takes a full batch.

    Raises:
        PipelineError: a check has failed.
    """
    probe = payload_key(settings.source, "preflight")
    payloads.put(probe, b"x" * 1024)
    payloads.drop([probe])
    payloads.check_alone()
    payloads.check_commands()
    payloads.check_takes(settings.batch_max_bytes)


def check_clickhouse(settings: Settings, clickhouse: ClickHouse) -> dict[str, schema.Table]:
    """Check that ClickHouse answers and has the tables; return them by name.

    Raises:
        PipelineError: a check has failed.
    """
    try:
        return schema.check(clickhouse, settings)
    except TransientError as error:
        raise clickhouse_unreachable(error) from error


@contextmanager
def checked_clickhouse(settings: Settings, timeout_s: float) -> Iterator[ClickHouse]:
    """Open ClickHouse, and check it as `check_clickhouse` does.

    Raises:
        PipelineError: a check has failed.
    """
    with ClickHouse.of(settings, timeout_s=timeout_s) as clickhouse:
        check_clickhouse(settings, clickhouse)
        yield clickhouse


def check_stores(settings: Settings) -> dict[str, schema.Table]:
    """Check Redis and ClickHouse, as a reader and a worker do at their start; return ClickHouse's tables by name.

    Raises:
        PipelineError: a check has failed.
    """
    with Payloads.of(settings) as payloads:
        check_redis(settings, payloads)
    with ClickHouse.of(settings, timeout_s=_CHECK_TIMEOUT_S) as clickhouse:
        tables = check_clickhouse(settings, clickhouse)
        trial.ensure(clickhouse, settings)
        return tables


def patiently(check: Callable[[], _T], stopping: Callable[[], bool]) -> _T:
    """Return what a check of the servers returns; repeat it a few times if a server does not answer.

    Of several servers behind one address, one may be dead: the next attempt may reach another one.

    Raises:
        PipelineError: as of `check`.
    """
    for pause_s in _PAUSES_S:
        try:
            return check()
        except TransientError as error:
            log.warning("start_repeated", wait_s=pause_s, error=error)
            if sleep_unless(stopping, pause_s):
                raise
    return check()


def check_views(settings: Settings) -> None:
    """Check that each materialized view on an event table gets each event exactly once, as a reader does at its start.

    Raises:
        PipelineError: a view is not exact, and OUTHAUL_VIEWS_NOT_EXACT does not name it; or ClickHouse does not answer.
    """
    try:
        with ClickHouse.of(settings, timeout_s=_CHECK_TIMEOUT_S) as clickhouse:
            view_check.check_views(clickhouse, settings)
    except TransientError as error:
        raise clickhouse_unreachable(error) from error


def clickhouse_unreachable(error: TransientError) -> TransientError:
    """Return the error with what to do, for callers that do not repeat the attempt."""
    return TransientError(
        error.message,
        code=error.code,
        todo="Check that it runs and that OUTHAUL_CLICKHOUSE_URL reaches it",
        exit_code=Exit.CLICKHOUSE_UNREACHABLE,
    )

"""Settings -> proof that the three servers are as they must be, or the first thing that is not.

Edge: Postgres by an ordinary connection, Redis and ClickHouse by their own edges. Each check that fails says what to
do and has an exit code of its own; none changes anything but one key in Redis that expires.

Source: https://www.postgresql.org/docs/current/logical-replication-config.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from outhaul.cdc_reader.postgres.errors import slot_missing, slot_unusable
from outhaul.cdc_reader.postgres.query import connect
from outhaul.cdc_reader.postgres.slot_view import slot_facts
from outhaul.sink import schema
from outhaul.sink.errors import Exit, FatalError, TransientError
from outhaul.sink.redis_keys import payload_key

if TYPE_CHECKING:
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.clickhouse import ClickHouse
    from outhaul.sink.redis.payloads import Payloads
    from outhaul.sink.settings import Settings, Stream

_OLDEST_VERSION = 140000
# Row filters came then, without which a stream has no shards.
_OLDEST_WITH_SHARDS = 150000
_PRINTED = re.compile(r"::\w+|[()\s]")

_SERVER: LiteralString = """
    SELECT current_setting('server_version_num')::int AS version, current_setting('wal_level') AS wal_level,
           (SELECT setting::int FROM pg_settings WHERE name = 'wal_sender_timeout') AS wal_sender_timeout_ms,
           current_database() AS database, rolreplication OR rolsuper AS may_replicate, rolname
    FROM pg_roles WHERE rolname = current_user"""

# By names: a cast to regclass would be tried for tables in schemas that a plain role may not look into.
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


@dataclass(frozen=True, slots=True)
class Server:
    """What later stages need to know of Postgres; the timeout is 0 when there is none."""

    wal_sender_timeout_s: float


def check_postgres(stream: Stream) -> Server:
    """Check version, settings, role, table and publication.

    Raises:
        PipelineError: the first of them that is not as it must be.
    """
    names = {"tables": [outbox.sql_table for outbox in stream.settings.outboxes()], "publication": stream.publication}
    with connect(stream.settings.postgres_dsn.get_secret_value()) as conn:
        server = check_server(conn)
        check_shards(stream.settings, server["version"])
        tables = conn.fetch(
            "SELECT to_regclass(name) IS NOT NULL AS is_there FROM unnest(%(tables)s::text[]) AS name", names
        )
        publication = conn.fetch_one(PUBLICATION, names)
    for outbox, found in zip(stream.settings.outboxes(), tables, strict=True):
        if not found["is_there"]:
            raise FatalError(
                f"Postgres has no table {outbox.table}",
                todo="Create it with `outhaul setup`, or name yours in OUTHAUL_TABLE as schema.table",
                exit_code=Exit.TABLE_MISSING,
            )
    check_publication(stream, publication)
    return Server(server["wal_sender_timeout_ms"] / 1000)


def check_server(conn: Connection) -> dict[str, Any]:
    """Check version, wal_level and role; return what the server says of itself.

    Raises:
        FatalError: logical replication is not possible.
    """
    check_primary(conn)
    return check_decodes(conn)


def check_decodes(conn: Connection) -> dict[str, Any]:
    """As `check_server`, of a server that may be a standby.

    Raises:
        FatalError: logical replication is not possible.
    """
    server = conn.fetch_one(_SERVER) or {}
    check_version(server["version"])
    check_wal_level(server["wal_level"])
    check_role(server["rolname"], may_replicate=server["may_replicate"])
    return server


def is_standby(conn: Connection) -> bool:
    """Tell whether a server is in recovery.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    return bool(conn.fetch_value("SELECT pg_is_in_recovery()"))


def check_primary(conn: Connection) -> None:
    """Check that the server is no standby; one that is may be promoted soon.

    Raises:
        TransientError: it is one.
        PipelineError: Postgres refuses or does not answer.
    """
    if is_standby(conn):
        raise TransientError(
            f"Postgres at {conn.info.host}:{conn.info.port} is a standby, and outhaul writes its marks to the primary",
            todo="Point OUTHAUL_POSTGRES_DSN at the primary, or name all servers there, as in "
            "postgresql://...@one,two/db?target_session_attrs=read-write. To stream from a standby, name that in "
            "OUTHAUL_STREAM_DSN",
            exit_code=Exit.POSTGRES_UNREACHABLE,
        )


def check_version(number: int) -> None:
    """Check `server_version_num`.

    Raises:
        FatalError: it is too old.
    """
    if number < _OLDEST_VERSION:
        raise FatalError(
            f"Postgres {number // 10000} is too old",
            todo="Use Postgres 14 or later",
            exit_code=Exit.WAL_LEVEL,
        )


def check_shards(settings: Settings, version: int) -> None:
    """Check that the server, by its `server_version_num`, can divide a stream.

    Raises:
        FatalError: it cannot.
    """
    if settings.shards > 1 and version < _OLDEST_WITH_SHARDS:
        raise FatalError(
            f"Postgres {version // 10000} has no row filters, which shards need",
            todo="Use Postgres 15 or later, or OUTHAUL_SHARDS=1",
            exit_code=Exit.WAL_LEVEL,
        )


def check_wal_level(level: str) -> None:
    """Check that the WAL has what logical replication needs.

    Raises:
        FatalError: it has not.
    """
    if level != "logical":
        raise FatalError(
            f"Postgres runs with wal_level = {level}, which keeps too little for logical replication",
            todo="ALTER SYSTEM SET wal_level = 'logical', then restart Postgres",
            exit_code=Exit.WAL_LEVEL,
        )


def check_role(name: str, *, may_replicate: bool) -> None:
    """Check the role's attributes.

    Raises:
        FatalError: it may not replicate.
    """
    if not may_replicate:
        raise FatalError(
            f"role {name!r} has no REPLICATION attribute",
            todo=f'ALTER ROLE "{name}" REPLICATION',
            exit_code=Exit.ROLE,
        )


def check_publication(stream: Stream, publication: dict[str, Any] | None) -> None:
    """Check a row of `PUBLICATION`.

    Raises:
        FatalError: there is none, or the reader would not get the inserts of each outbox, and those alone.
    """
    name = stream.publication
    tables = ", ".join(outbox.table for outbox in stream.settings.outboxes())
    if publication is None:
        problem, todo = f"publication {name!r} does not exist", "Create it with `outhaul setup`"
    elif not publication["via_root"]:
        # Asked first: such a publication does not list the table itself, though it holds it.
        problem = f"publication {name!r} would publish the partitions of {tables}, not the table"
        todo = f"ALTER PUBLICATION {name} SET (publish_via_partition_root = true)"
    elif publication["lacking"]:
        lacking = ", ".join(publication["lacking"])
        problem, todo = f"publication {name!r} does not hold {lacking}", f"ALTER PUBLICATION {name} ADD TABLE {lacking}"
    elif stream.row_condition and not all(_is_filter(stream, found) for found in publication["filters"]):
        problem = f"publication {name!r} has not the row filter of its shard: {', '.join(publication['filters'])}"
        todo = f"Make it anew: DROP PUBLICATION {name}; then `outhaul setup`"
    elif not publication["pubinsert"]:
        problem, todo = (
            f"publication {name!r} publishes no inserts",
            f"ALTER PUBLICATION {name} SET (publish = 'insert')",
        )
    elif publication["others"]:
        problem = f"publication {name!r} holds tables that nobody asked to capture: {', '.join(publication['others'])}"
        others = ", ".join(publication["others"])
        todo = f"ALTER PUBLICATION {name} DROP TABLE {others}, or use a publication of outhaul's own"
    else:
        return
    raise FatalError(problem, todo=todo, exit_code=Exit.PUBLICATION_MISSING)


def _is_filter(stream: Stream, found: str) -> bool:
    """Tell whether Postgres has a shard's condition there, which it prints with casts and parentheses of its own."""
    return _PRINTED.sub("", found) == _PRINTED.sub("", stream.row_condition)


def check_slot(conn: Connection, stream: Stream) -> None:
    """Check that the slot is there, ours, and can be streamed from.

    Raises:
        FatalError: it is not.
        PipelineError: Postgres refuses or does not answer.
    """
    facts = slot_facts(conn, stream)
    if facts is None:
        raise slot_missing(stream.slot)
    if facts.problem:
        raise slot_unusable(stream.slot, facts.problem, facts.todo)


def check_redis(settings: Settings, payloads: Payloads) -> None:
    """Check that Redis answers, takes a payload, and is one server.

    Raises:
        PipelineError: it does not, and why.
    """
    probe = payload_key(settings.source, "preflight")
    payloads.put(probe, b"x" * 1024)
    payloads.drop([probe])
    payloads.check_alone()


def check_clickhouse(settings: Settings, clickhouse: ClickHouse) -> None:
    """Check that ClickHouse answers and has the tables.

    Raises:
        PipelineError: it does not, and why.
    """
    try:
        schema.check(clickhouse, settings)
    except TransientError as error:
        raise clickhouse_away(error) from error


def clickhouse_away(error: TransientError) -> TransientError:
    """Return the error with what to do about it where nobody tries again."""
    return TransientError(
        error.message,
        code=error.code,
        todo="Check that it runs and that OUTHAUL_CLICKHOUSE_URL reaches it",
        exit_code=Exit.CLICKHOUSE_UNREACHABLE,
    )

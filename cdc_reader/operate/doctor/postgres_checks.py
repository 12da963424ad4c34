"""Settings -> server, role, outbox, publication and slot in Postgres, and the findings about them.

Edge: one ordinary connection, one to the server that has the slot, and one for replication that is closed again. It
changes nothing.

Source: https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import class_row

from outhaul.cdc_reader.operate.doctor import postgres_encryption, postgres_role, postgres_settings, publication_checks
from outhaul.cdc_reader.operate.doctor.clock_offsets import Offset, measured
from outhaul.cdc_reader.operate.doctor.column_match import OutboxColumn
from outhaul.cdc_reader.operate.doctor.postgres_role import AppRights
from outhaul.cdc_reader.postgres.connect import END_OF_LOG, connect_stream, is_elsewhere
from outhaul.cdc_reader.postgres.errors import error_of
from outhaul.cdc_reader.postgres.preflight import PUBLICATION, connect
from outhaul.cdc_reader.postgres.slot import open_link
from outhaul.cdc_reader.postgres.slot_view import SlotFacts, slot_facts
from outhaul.sink.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.cdc_reader.operate.doctor.finding import Finding
    from outhaul.sink.position import History
    from outhaul.sink.settings import Outbox, Stream

_CONNECT_S = 5
_Facts = TypeVar("_Facts")

_ROLE: LiteralString = """
    SELECT rolname AS name, rolsuper AS superuser, rolreplication AS replication,
           pg_has_role(oid, 'pg_read_all_stats', 'USAGE') AS sees_sessions,
           (SELECT has_schema_privilege(relnamespace, 'USAGE') AND has_table_privilege(oid, 'SELECT')
            FROM pg_class WHERE oid = to_regclass(%(table)s)) AS may_select
    FROM pg_roles WHERE rolname = current_user"""

# No row if the role does not exist: apps then have privileges of another role.
_APP: LiteralString = """
    SELECT has_schema_privilege(rolname, relnamespace, 'USAGE') AS schema,
           has_table_privilege(rolname, outbox.oid, 'INSERT') AS insert,
           (SELECT has_column_privilege(rolname, outbox.oid, attnum, 'SELECT') FROM pg_attribute
            WHERE attrelid = outbox.oid AND attname = 'event_key' AND NOT attisdropped) AS key,
           has_sequence_privilege(rolname, serial.name::regclass, 'USAGE') AS sequence, serial.name AS sequence_name
    FROM pg_roles, pg_class AS outbox, LATERAL (
        SELECT (SELECT pg_get_serial_sequence(%(table)s, attname) FROM pg_attribute
                WHERE attrelid = outbox.oid AND attname = 'id' AND NOT attisdropped) AS name) AS serial
    WHERE rolname = 'outhaul_app' AND outbox.oid = to_regclass(%(table)s)"""

_OUTBOX: LiteralString = """
    SELECT relkind::text AS kind, relpersistence::text AS persistence, partitions, uncaptured
    FROM pg_class AS outbox, LATERAL (
        SELECT count(*)::int AS partitions,
               coalesce(array_agg(leaf.oid::regclass::text ORDER BY leaf.relname)
                        FILTER (WHERE leaf.relkind = 'f' OR leaf.relpersistence <> 'p'), '{}') AS uncaptured
        FROM pg_partition_tree(outbox.oid) AS tree JOIN pg_class AS leaf ON leaf.oid = tree.relid
        WHERE tree.isleaf AND leaf.oid <> outbox.oid) AS leaves
    WHERE outbox.oid = to_regclass(%(table)s)"""

# Through JSON, so that a column that this version does not have is NULL, not an error.
_PROSPECT: LiteralString = """
    SELECT safe_wal_size, pg_wal_lsn_diff(wal.lsn, confirmed_flush_lsn)::bigint AS behind_bytes,
           (to_jsonb(slot) ->> 'failover')::boolean AS failover
    FROM pg_replication_slots AS slot, LATERAL (
        SELECT {end_of_log} AS lsn) AS wal
    WHERE slot_name = %(slot)s"""

_COLUMNS: LiteralString = """
    SELECT attname AS name, atttypid::bigint AS type_oid, format_type(atttypid, atttypmod) AS type,
           atttypmod AS modifier, NOT attnotnull AS nullable,
           coalesce((SELECT to_jsonb(held) -> 'attnames' ? attname FROM pg_publication_tables AS held
                     WHERE pubname = %(publication)s AND schemaname = nspname AND tablename = relname),
                    true) AS published
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ORDER BY attnum"""


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """All answers."""

    server: postgres_settings.Server
    role: postgres_role.Role
    link: History | PipelineError
    outbox: publication_checks.OutboxFacts | None
    publication: dict[str, Any] | None
    slot: SlotFacts | None
    prospect: publication_checks.Prospect | None
    columns: tuple[OutboxColumn, ...]
    clock: Offset
    encryption: postgres_encryption.Encryption
    app: AppRights | None = None


def ask(stream: Stream, outboxes: Sequence[Outbox]) -> PostgresFacts:
    """Ask about a stream, and about the first of these outboxes.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    names: dict[str, Any] = {
        "table": outboxes[0].sql_table,
        "tables": [outbox.sql_table for outbox in outboxes],
        "publication": stream.publication,
        "slot": stream.slot,
    }
    dsn, within_s = stream.settings.postgres_dsn.get_secret_value(), str(_CONNECT_S)
    with (
        connect(dsn, connect_timeout=within_s) as conn,
        connect_stream(stream.settings, connect_timeout=within_s) as at_slot,
    ):
        try:
            conn.execute("SET statement_timeout = '5s'")
            at_slot.execute("SET statement_timeout = '5s'")
            return PostgresFacts(
                _one(conn, postgres_settings.Server, postgres_settings.QUERY, names),
                _one(conn, postgres_role.Role, _ROLE, names),
                try_link(stream),
                conn.cursor(row_factory=class_row(publication_checks.OutboxFacts)).execute(_OUTBOX, names).fetchone(),
                conn.execute(PUBLICATION, names).fetchone(),
                slot_facts(at_slot, stream),
                at_slot.cursor(row_factory=class_row(publication_checks.Prospect))
                .execute(_PROSPECT.format(end_of_log=END_OF_LOG), names)
                .fetchone(),
                tuple(conn.cursor(row_factory=class_row(OutboxColumn)).execute(_COLUMNS, names).fetchall()),
                measured(lambda: _clock(conn)),
                postgres_encryption.asked(conn),
                conn.cursor(row_factory=class_row(AppRights)).execute(_APP, names).fetchone(),
            )
        except psycopg.Error as error:
            raise error_of(error.sqlstate, str(error), slot=stream.slot, publication=stream.publication) from error


def try_link(stream: Stream) -> History | PipelineError:
    """Open a replication connection and close it again; return the server's history, or the error."""
    try:
        link = open_link(
            make_conninfo(stream.settings.slot_dsn, connect_timeout=_CONNECT_S), stream.slot, stream.publication
        )
        with closing(link):
            return link.identify()
    except PipelineError as error:
        return error


def judge(facts: PostgresFacts, stream: Stream, outbox: Outbox) -> Iterator[Finding]:
    """Judge all answers about a stream and the first outbox."""
    slot, elsewhere = facts.slot, is_elsewhere(stream.settings)
    yield from postgres_settings.judge(
        facts.server,
        stream.settings,
        has_slot=slot is not None or elsewhere,
        streams=elsewhere or (slot is not None and slot.active_pid is not None),
    )
    refused = facts.link if isinstance(facts.link, PipelineError) else None
    yield from postgres_role.judge(facts.role, outbox, refused)
    yield postgres_encryption.judge(facts.encryption)
    yield from publication_checks.outbox(facts.outbox, outbox.table)
    if facts.app is not None:
        yield postgres_role.app(facts.app, outbox.sql_table)
    if facts.outbox is not None:
        yield from publication_checks.publication(stream, facts.publication, facts.outbox)
    yield from publication_checks.slot(stream, slot, facts.prospect, version=facts.server.version)


def judge_stream(facts: PostgresFacts, stream: Stream) -> Iterator[Finding]:
    """Judge publication and slot of one shard."""
    if facts.outbox is not None:
        yield from publication_checks.publication(stream, facts.publication, facts.outbox)
    yield from publication_checks.slot(stream, facts.slot, facts.prospect, version=facts.server.version)


def judge_outbox(facts: PostgresFacts, outbox: Outbox, publication: str) -> Iterator[Finding]:
    """Judge one outbox of several: the table, its partitions, and the privilege to read it."""
    yield from publication_checks.outbox(facts.outbox, outbox.table)
    if facts.outbox is None:
        return
    if facts.outbox.kind == "p" and facts.publication is not None:
        yield publication_checks.partitions(publication, facts.outbox, via_root=facts.publication["pubviaroot"])
    yield postgres_role.select(facts.role, outbox.sql_table)
    if facts.app is not None:
        yield postgres_role.app(facts.app, outbox.sql_table)


def _one(conn: psycopg.Connection[Any], kind: type[_Facts], query: LiteralString, names: dict[str, Any]) -> _Facts:
    row = conn.cursor(row_factory=class_row(kind)).execute(query, names).fetchone()
    if row is None:
        raise error_of("28000", "the role is gone")
    return row


def _clock(conn: psycopg.Connection[dict[str, Any]]) -> float:
    row = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float AS now").fetchone() or {}
    return float(row["now"])

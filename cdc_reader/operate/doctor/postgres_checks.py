"""Settings -> server, role, outbox, publication and slot in Postgres, and the findings about them.

Edge: one ordinary connection, one to the server that has the slot, and one for replication that is closed again. It
changes nothing.

Source: https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

from outhaul.cdc_reader.operate.doctor import (
    outbox_risks,
    postgres_encryption,
    postgres_role,
    postgres_settings,
    publication_checks,
)
from outhaul.cdc_reader.operate.doctor.clock_offsets import Offset, measured
from outhaul.cdc_reader.operate.doctor.column_match import OutboxColumn
from outhaul.cdc_reader.operate.doctor.postgres_role import AppRights
from outhaul.cdc_reader.postgres.connect import (
    END_OF_LOG,
    connect_primary,
    connect_stream,
    explained,
    has_stream_dsn,
    name_stream_dsn,
    open_stream,
)
from outhaul.cdc_reader.postgres.outbox_checks import OutboxRisks, ask_risks
from outhaul.cdc_reader.postgres.preflight import PUBLICATION, unique_keys
from outhaul.cdc_reader.postgres.provider import SELF_RUN, provider_of
from outhaul.cdc_reader.postgres.slot_view import SlotFacts, slot_facts
from outhaul.sink.errors import FatalError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outhaul.cdc_reader.operate.doctor.finding import Finding
    from outhaul.cdc_reader.postgres.provider import Provider
    from outhaul.cdc_reader.postgres.query import Connection
    from outhaul.sink.position import History
    from outhaul.sink.settings import Outbox, Stream

_CONNECT_S = "5"
_Row = TypeVar("_Row")

_ROLE: LiteralString = """
    SELECT rolname AS name, rolsuper AS superuser,
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
    WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
        -- Since version 18 a publication may have stored generated columns.
        AND (attgenerated = '' OR EXISTS (
            SELECT FROM pg_publication_tables AS held
            WHERE pubname = %(publication)s AND schemaname = nspname AND tablename = relname
                AND to_jsonb(held) -> 'attnames' ? attname))
    ORDER BY attnum"""


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """All answers."""

    server: postgres_settings.ServerSettings
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
    unique_keys: tuple[frozenset[str], ...] = ()
    provider: Provider = SELF_RUN
    risks: OutboxRisks | None = None


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
    with (
        connect_primary(stream.settings, connect_timeout=_CONNECT_S) as conn,
        connect_stream(stream.settings, connect_timeout=_CONNECT_S) as at_slot,
    ):
        conn.execute("SET statement_timeout = '5s'")
        at_slot.execute("SET statement_timeout = '5s'")
        return PostgresFacts(
            conn.fetch_as(postgres_settings.ServerSettings, postgres_settings.QUERY)[0],
            conn.fetch_as(postgres_role.Role, _ROLE, names)[0],
            try_link(stream, at_slot),
            _first(conn.fetch_as(publication_checks.OutboxFacts, _OUTBOX, names)),
            conn.fetch_one(PUBLICATION, names),
            slot_facts(at_slot, stream),
            _first(at_slot.fetch_as(publication_checks.Prospect, _PROSPECT.format(end_of_log=END_OF_LOG), names)),
            tuple(conn.fetch_as(OutboxColumn, _COLUMNS, names)),
            measured(lambda: float(conn.fetch_value("SELECT extract(epoch FROM clock_timestamp())::float"))),
            postgres_encryption.asked(conn),
            _first(conn.fetch_as(AppRights, _APP, names)),
            unique_keys(conn, outboxes[0].sql_table),
            provider_of(conn),
            _first(ask_risks(conn, [outboxes[0].sql_table])),
        )


def try_link(stream: Stream, conn: Connection) -> History | PipelineError:
    """Open a replication connection and close it again; return the server's history, or the error.

    Args:
        stream: names the server.
        conn: an ordinary connection to that server.
    """
    try:
        with closing(open_stream(stream, connect_timeout=_CONNECT_S)) as link:
            return link.identify()
    except FatalError as error:
        return name_stream_dsn(explained(error, conn), stream.settings)
    except PipelineError as error:
        return error


def judge(facts: PostgresFacts, stream: Stream, outbox: Outbox) -> Iterator[Finding]:
    """Judge all answers about a stream and the first outbox."""
    slot, elsewhere = facts.slot, has_stream_dsn(stream.settings)
    yield from postgres_settings.judge(
        facts.server,
        stream.settings,
        has_slot=slot is not None or elsewhere,
        streams=elsewhere or (slot is not None and slot.active_pid is not None),
        provider=facts.provider,
    )
    refused = facts.link if isinstance(facts.link, PipelineError) else None
    yield from postgres_role.judge(facts.role, outbox, refused)
    yield postgres_encryption.judge(facts.encryption)
    yield from publication_checks.outbox(facts.outbox, outbox.table)
    if facts.risks is not None:
        yield from outbox_risks.judge(facts.risks)
    if facts.app is not None:
        yield postgres_role.app(facts.app, outbox)
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
    if facts.risks is not None:
        yield from outbox_risks.judge(facts.risks)
    yield postgres_role.select(facts.role, outbox.sql_table)
    if facts.app is not None:
        yield postgres_role.app(facts.app, outbox)


def _first(rows: list[_Row]) -> _Row | None:
    return rows[0] if rows else None

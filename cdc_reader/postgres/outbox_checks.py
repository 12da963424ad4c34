"""Catalogue of Postgres -> why events of an outbox would be missed, stored twice, or hidden from comparisons.

Edge: one query; each verdict is pure. The stream has what the log has, a comparison has what a query returns, so a
table for which these differ is refused before its first event:

- Row-level security hides rows from queries, and not from the stream.
- Inserts into a child table (INHERITS) are rows of the outbox for queries, but not for the publication.
- Inserts into an unlogged or foreign partition are not in the log.
- An UPDATE that moves a row to another partition is a DELETE and an INSERT in the log, so the stream has the event a
  second time. A changed id or time makes another event anyway (see `cdc_reader/outbox/event_identity.py`).

Source: https://www.postgresql.org/docs/current/ddl-rowsecurity.html,
https://www.postgresql.org/docs/current/sql-createpublication.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from outhaul.sink.errors import Exit, FatalError
from outhaul.sink.quoting import postgres_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outhaul.cdc_reader.postgres.query import Connection

KEEPS_PARTITION = "outhaul_keep_partition"
"""Name of a trigger that refuses every UPDATE which would move a row to another partition."""

# What tells events apart: a row that gets another id or time is another event.
_IDENTITY = {"id", "event_date_time"}

# A partitioned table depends on the columns of its key, also on those inside an expression. The key of a partition is
# that of all tables above it.
_FACTS: LiteralString = """
    SELECT c.oid::regclass::text AS name, nspname::text AS schema, current_user::text AS role,
           row_security_active(c.oid) AS is_filtered,
           c.relforcerowsecurity AND pg_has_role(c.relowner, 'USAGE') AS is_forced,
           pg_get_userbyid(c.relowner)::text AS owner,
           ARRAY(SELECT inhrelid::regclass::text FROM pg_inherits
                 WHERE inhparent = c.oid AND c.relkind = 'r' ORDER BY 1) AS children,
           ARRAY(SELECT relid::regclass::text
                 FROM pg_partition_tree(c.oid) JOIN pg_class AS leaf ON leaf.oid = relid
                 WHERE isleaf AND relid <> c.oid AND (leaf.relkind = 'f' OR leaf.relpersistence <> 'p')
                 ORDER BY 1) AS uncaptured,
           ARRAY(SELECT DISTINCT attname::text
                 FROM pg_partitioned_table
                 JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = partrelid AND objsubid > 0
                      AND refclassid = classid AND refobjid = partrelid AND refobjsubid = 0 AND deptype = 'i'
                 JOIN pg_attribute ON attrelid = partrelid AND attnum = objsubid
                 WHERE partrelid IN (SELECT relid FROM pg_partition_tree(c.oid))
                    OR partrelid IN (SELECT relid FROM pg_partition_ancestors(c.oid))
                 ORDER BY 1) AS keys,
           -- A trigger for rows, before an UPDATE, that is not disabled.
           EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgname = %(guard)s
                   AND tgtype & 19 = 19 AND tgenabled IN ('O', 'A')) AS is_guarded
    FROM unnest(%(tables)s::text[]) AS wanted JOIN pg_class AS c ON c.oid = to_regclass(wanted)
    JOIN pg_namespace ON pg_namespace.oid = c.relnamespace"""


@dataclass(frozen=True, slots=True)
class OutboxRisks:
    """What the catalogue shows about an outbox. Names of tables are quoted as in SQL.

    `is_filtered`: row-level security applies to `role`, by which we are logged in; `is_forced`: although it owns the
    table. `keys` are the columns that decide about a row's partition; `is_guarded`: a trigger refuses their changes.
    """

    name: str
    schema: str
    role: str
    owner: str
    is_filtered: bool
    is_forced: bool
    children: list[str]
    uncaptured: list[str]
    keys: list[str]
    is_guarded: bool


def ask_risks(conn: Connection, sql_tables: Iterable[str]) -> list[OutboxRisks]:
    """Return the facts about those of the tables that exist.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    return conn.fetch_as(OutboxRisks, _FACTS, {"tables": list(sql_tables), "guard": KEEPS_PARTITION})


def check_outboxes(conn: Connection, sql_tables: Iterable[str]) -> None:
    """Check that the stream has each event of the outboxes once, and that comparisons see all rows.

    Raises:
        FatalError: it does not, or they do not.
        PipelineError: Postgres refuses or does not answer.
    """
    for found in ask_risks(conn, sql_tables):
        check_children(found)
        check_partitions(found)
        check_moves(found)
        check_visible(found)


def check_sees_all(conn: Connection, sql_table: str) -> None:
    """Check that a query sees all rows of an outbox.

    Raises:
        FatalError: row-level security hides rows.
        PipelineError: Postgres refuses or does not answer.
    """
    for found in ask_risks(conn, [sql_table]):
        check_visible(found)


def check_visible(found: OutboxRisks) -> None:
    """Check that row-level security does not apply to the role.

    Raises:
        FatalError: it does.
    """
    if not found.is_filtered:
        return
    role = postgres_identifier(found.role)
    instead = (
        f"ALTER TABLE {found.name} NO FORCE ROW LEVEL SECURITY"
        if found.is_forced
        else f"GRANT {postgres_identifier(found.owner)} TO {role}"
    )
    raise FatalError(
        f"row-level security of {found.name} applies to role {found.role!r}: the stream has all rows, but heal, "
        "verify, backfill and prune would see only some of them",
        todo=f"ALTER ROLE {role} BYPASSRLS;  -- or, without the right to do that: {instead};",
        exit_code=Exit.ROLE,
    )


def check_children(found: OutboxRisks) -> None:
    """Check that no other table inherits from the outbox.

    Raises:
        FatalError: a table does.
    """
    if found.children:
        raise FatalError(
            f"{', '.join(found.children)} inherits from {found.name}: events that are inserted there are not in the "
            "stream of the outbox",
            todo=f"ALTER TABLE {found.children[0]} NO INHERIT {found.name};  -- and insert into {found.name} itself. "
            "To divide a large outbox, use PARTITION BY",
            exit_code=Exit.TABLE_MISSING,
        )


def check_partitions(found: OutboxRisks) -> None:
    """Check that inserts into all partitions are in the log.

    Raises:
        FatalError: those into some are not.
    """
    if found.uncaptured:
        raise FatalError(
            f"inserts into {', '.join(found.uncaptured)}, partitions of {found.name}, are not in the WAL: they are "
            "unlogged or foreign tables",
            todo=f"ALTER TABLE {found.uncaptured[0]} SET LOGGED;  -- a foreign table: copy it into a local one",
            exit_code=Exit.TABLE_MISSING,
        )


def check_moves(found: OutboxRisks) -> None:
    """Check that no UPDATE of a row makes its event appear in the stream again.

    Raises:
        FatalError: an UPDATE of a partition key does.
    """
    movable = [key for key in found.keys if key not in _IDENTITY]
    if not movable or found.is_guarded:
        return
    columns = [postgres_identifier(key) for key in found.keys]
    changed = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in columns)
    named = ", ".join(movable)
    function = f"{postgres_identifier(found.schema)}.{KEEPS_PARTITION}"
    raise FatalError(
        f"{found.name} is partitioned by {named}: an UPDATE of {named} that moves a row to another partition is a "
        "DELETE and an INSERT in the WAL, and its event would be stored a second time",
        todo=f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'this UPDATE "
        "would move an event to another partition, and outhaul would store it again'; END$$; "
        f"CREATE TRIGGER {KEEPS_PARTITION} BEFORE UPDATE ON {found.name} FOR EACH ROW WHEN ({changed}) "
        f"EXECUTE FUNCTION {function}();  -- if no app updates {named}; else partition it by id or event_date_time",
        exit_code=Exit.TABLE_MISSING,
    )

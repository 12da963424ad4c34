"""Outbox, names of new columns -> the value that rows from before the column was added have in it.

Edge: Postgres' catalogue. ADD COLUMN ... DEFAULT does not rewrite the table: Postgres keeps the default, and every
older row has it. Such rows were streamed without the column. If the default is not the same for all rows (a random
number, a sequence), Postgres rewrites the table, and there is no such value. A column may also be new to ClickHouse
alone: renamed, or added to the column list of the publication. Its older rows may have any value, so it is left out.

Source: https://www.postgresql.org/docs/current/catalog-pg-attribute.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from collections.abc import Collection

    from outhaul.cdc_reader.postgres.query import Connection

# A partitioned table has no rows of its own: its partitions keep the value.
_BEFORE: LiteralString = """
    SELECT DISTINCT attname AS name, (attmissingval::text::text[])[1] AS value
    FROM pg_attribute
    WHERE (attrelid = to_regclass(%(table)s)
           OR attrelid IN (SELECT relid FROM pg_partition_tree(to_regclass(%(table)s))))
        AND atthasmissing AND NOT attisdropped AND attname = ANY(%(columns)s)
        AND NOT EXISTS (SELECT unnest(%(stored)s::text[]) EXCEPT
                        SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%(table)s) AND NOT attisdropped)
        AND NOT EXISTS (SELECT FROM pg_publication_rel AS published
                        WHERE prrelid = to_regclass(%(table)s) AND to_jsonb(published) ->> 'prattrs' IS NOT NULL)"""

# Columns that `outhaul setup` gives the table in ClickHouse, whatever the outbox has.
_OURS = {"id", "event_type", "event_date_time", "environment", "event_context", "metadata_version", "event_key"}


def values_before(
    conn: Connection, sql_table: str, columns: Collection[str], stored: Collection[str]
) -> dict[str, str]:
    """Return the values as Postgres prints them, by name, of those of the columns that have one.

    Args:
        conn: an open connection.
        sql_table: the outbox, quoted as in SQL.
        columns: names of the new columns.
        stored: names of the columns that ClickHouse has. If the outbox lacks one, it may have been renamed.

    Raises:
        PipelineError: Postgres refuses or does not answer.
    """
    outboxes = [name for name in stored if name not in _OURS and not name.startswith("cdc_")]
    rows = conn.fetch(_BEFORE, {"table": sql_table, "columns": list(columns), "stored": outboxes})
    return {row["name"]: row["value"] for row in rows if row["value"] is not None}

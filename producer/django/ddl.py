"""The files of `sql/postgres` -> operations of a Django migration.

Edge: reads files of this package. `outhaul setup` applies the same files.
"""

from __future__ import annotations

from pathlib import Path
from string import Template

from django.db.migrations.operations import RunSQL

from outhaul.django.conf import publication, target

_SQL = Path(__file__).parents[1] / "sql" / "postgres"
FILES = ("0001_outbox", "0002_publication", "0004_roles", "0005_emit")
_KEYS = "ALTER TABLE ${table} ADD COLUMN IF NOT EXISTS event_key text UNIQUE;"


def outbox() -> list[RunSQL]:
    """Return the operations that create table, publication, roles and functions; existing ones are not changed.

    They do not create the slot, since Postgres refuses that in a transaction that has written. `outhaul setup` creates
    the slot. Reversing the migration removes nothing, since the table may hold events that are not stored yet.
    """
    texts = [_file(name) for name in FILES]
    # 0001_outbox does not change an existing table, which may have no column for keys.
    texts.insert(1, _KEYS)
    return [RunSQL(_filled(text), reverse_sql=RunSQL.noop) for text in texts]


def _file(name: str) -> str:
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


def _filled(text: str) -> str:
    found, name = target(), publication()
    table = found.quoted if len(found.parts) > 1 else f"{found.quoted_schema}.{found.quoted}"
    # Quotes of the files' blocks that no name has.
    unlike = ""
    while any(f"{unlike}$" in one for one in (table, name)):
        unlike += "_"
    return Template(text).substitute(
        unlike=unlike,
        schema=found.quoted_schema,
        schema_literal=_literal(found.quoted_schema),
        table=table,
        table_literal=_literal(table),
        publication='"' + name.replace('"', '""') + '"',
        publication_literal=_literal(name),
        row_filter="",
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

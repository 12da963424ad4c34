"""The files of `sql/postgres` -> operations of a Django migration.

Edge: reads files of this package. `outhaul setup` applies the same files.
"""

from __future__ import annotations

from dataclasses import replace
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
    found = target()
    if "." not in found.table:
        found = replace(found, table=f"public.{found.table}")
    name = publication()
    return Template(text).substitute(
        schema=found.quoted.partition(".")[0],
        table=found.quoted,
        table_literal=f"'{found.quoted}'",
        publication=f'"{name}"',
        publication_literal=f"'{name}'",
        row_filter="",
    )

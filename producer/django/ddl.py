"""The files of `sql/postgres` -> operations of a migration.

Edge: reads package data. There is one text of each statement, and it is the one that `outhaul setup` applies.
"""

from __future__ import annotations

from importlib.resources import files
from string import Template

from django.db.migrations.operations import RunSQL
from outhaul.django.conf import publication, target

_KEYS = "ALTER TABLE ${table} ADD COLUMN IF NOT EXISTS event_key text UNIQUE;"


def outbox() -> list[RunSQL]:
    """Return what makes table, publication, roles and functions; what is there already is left as it is.

    The slot is none of them: it cannot be made in a transaction that writes. `outhaul setup` makes it.
    Backwards nothing is taken away: events that are not stored yet may be in the table.
    """
    texts = [_file(name) for name in ("0001_outbox", "0002_publication", "0004_roles", "0005_emit")]
    # A table that was there before outhaul has no keys.
    texts.insert(1, _KEYS)
    return [RunSQL(_filled(text), reverse_sql=RunSQL.noop) for text in texts]


def _file(name: str) -> str:
    return files("outhaul").joinpath(f"sql/postgres/{name}.sql").read_text(encoding="utf-8")


def _filled(text: str) -> str:
    schema, _, name = target().table.rpartition(".")
    schema = schema or "public"
    return Template(text).substitute(schema=schema, table=f"{schema}.{name}", publication=publication(), row_filter="")

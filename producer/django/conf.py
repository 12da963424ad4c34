"""Settings of a Django project -> the names and addresses of its outbox.

Edge: reads `django.conf.settings`. The settings have the names of outhaul's own settings; each has a default.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

from outhaul.statement import Target


def target() -> Target:
    """Return the table (OUTHAUL_TABLE) and the default environment of events (OUTHAUL_ENVIRONMENT).

    Raises:
        EventError: one of them is invalid.
    """
    return Target(_setting("OUTHAUL_TABLE", "public.outbox"), _setting("OUTHAUL_ENVIRONMENT", None))


def db_table() -> str:
    """Return the table for a model's `db_table`. Django quotes it as one name, so the inner quotes are added here."""
    *schema, name = (part.replace('"', '""') for part in target().parts)
    return name if schema in ([], ["public"]) else f'{schema[0]}"."{name}'


def publication() -> str:
    """Return the name of the publication (OUTHAUL_PUBLICATION)."""
    return str(_setting("OUTHAUL_PUBLICATION", "outhaul"))


def clickhouse() -> tuple[str, str] | None:
    """Return the URL (OUTHAUL_CLICKHOUSE_URL) and table (OUTHAUL_CLICKHOUSE_TABLE) of events; None without a URL."""
    url = _setting("OUTHAUL_CLICKHOUSE_URL", "")
    return (str(url), str(_setting("OUTHAUL_CLICKHOUSE_TABLE", "event_log"))) if url else None


def _setting(name: str, default: Any) -> Any:
    return getattr(settings, name, default)

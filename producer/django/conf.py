"""Settings of a Django project -> what this app needs to know of its outbox.

Edge: reads `django.conf.settings`. All have defaults; the names are those of outhaul's own settings.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from outhaul.statement import Target


def target() -> Target:
    """Return the table (OUTHAUL_TABLE) and the environment of events that name none (OUTHAUL_ENVIRONMENT).

    Raises:
        EventError: one of them will not do.
    """
    return Target(_setting("OUTHAUL_TABLE", "public.outbox"), _setting("OUTHAUL_ENVIRONMENT", None))


def db_table() -> str:
    """Return the table as a model's `db_table` has it, which Django quotes as a whole."""
    schema, _, name = target().table.rpartition(".")
    return name if schema in {"", "public"} else f'{schema}"."{name}'


def publication() -> str:
    """Return the name of the publication (OUTHAUL_PUBLICATION)."""
    return str(_setting("OUTHAUL_PUBLICATION", "outhaul"))


def clickhouse() -> tuple[str, str] | None:
    """Return ClickHouse's URL (OUTHAUL_CLICKHOUSE_URL) and the table of events there; None where there is no URL."""
    url = _setting("OUTHAUL_CLICKHOUSE_URL", "")
    return (str(url), str(_setting("OUTHAUL_CLICKHOUSE_TABLE", "event_log"))) if url else None


def _setting(name: str, default: Any) -> Any:
    return getattr(settings, name, default)

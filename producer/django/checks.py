"""A Django project -> the findings of `manage.py check` about its outbox.

Edge: reads the project's settings and the source of its apps; with `--database`, also Postgres.

Source: https://docs.djangoproject.com/en/5.2/topics/checks/
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core import checks
from django.db import connections, router

from outhaul.django.atomic_check import PROMISE, outside_atomic
from outhaul.django.conf import clickhouse, publication, target
from outhaul.django.models import OutboxEvent
from outhaul.django.stored_ids import has_driver
from outhaul.errors import EventError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PUBLISHED = "SELECT count(*) FROM pg_publication_tables WHERE pubname = %s AND schemaname = %s AND tablename = %s"


@checks.register(checks.Tags.models)
def check_settings(**_options: Any) -> list[checks.CheckMessage]:
    """Check that the outbox' settings are valid and that its database is Postgres."""
    try:
        target()
    except EventError as error:
        return [checks.Error(f"OUTHAUL_TABLE or OUTHAUL_ENVIRONMENT: {error}", id="outhaul.E001")]
    connection = connections[router.db_for_write(OutboxEvent)]
    if connection.vendor != "postgresql":
        message = f"the outbox must be in Postgres, but database {connection.alias!r} is {connection.vendor}"
        return [checks.Error(message, hint="Use django.db.backends.postgresql, or a router.", id="outhaul.E002")]
    return []


@checks.register(checks.Tags.models)
def check_clickhouse(**_options: Any) -> list[checks.CheckMessage]:
    """The admin needs clickhouse-connect to show which events are stored."""
    if clickhouse() is None or has_driver():
        return []
    what = "the admin cannot show which events are stored: clickhouse-connect is not installed"
    return [checks.Warning(what, hint="Type: pip install clickhouse-connect", id="outhaul.W003")]


@checks.register(checks.Tags.models)
def check_transactions(**_options: Any) -> list[checks.CheckMessage]:
    """Warn about calls of `emit` without a visible `atomic()`: `emit` raises if no transaction is open."""
    if connections[router.db_for_write(OutboxEvent)].settings_dict.get("ATOMIC_REQUESTS"):
        return []
    return [
        checks.Warning(
            f"{path}:{line} emits an event, but no atomic() is visible around it",
            hint="Put `with transaction.atomic():` around it and the business change, or end the line with "
            f"`# {PROMISE}`.",
            id="outhaul.W001",
        )
        for path in _sources()
        for line in _lines(path)
    ]


@checks.register(checks.Tags.database)
def check_publication(databases: Sequence[str] | None = None, **_options: Any) -> list[checks.CheckMessage]:
    """Warn if the publication does not contain the outbox: its events would not be captured."""
    alias = router.db_for_write(OutboxEvent)
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    *schema, name = target().parts
    with connections[alias].cursor() as cursor:
        cursor.execute(_PUBLISHED, [publication(), schema[0] if schema else "public", name])
        found = cursor.fetchone()
    if found and found[0]:
        return []
    message = f"publication {publication()!r} does not contain {target().table}: its events are not captured"
    return [checks.Warning(message, hint="Run `manage.py migrate outhaul`, or `outhaul setup`.", id="outhaul.W002")]


def _sources() -> Iterator[Path]:
    """Yield the modules of the project's own apps, without tests and migrations."""
    installed = Path(sysconfig.get_paths()["purelib"])
    for config in apps.get_app_configs():
        root = Path(config.path)
        if installed in root.parents or config.name == "outhaul.django":
            continue
        for path in sorted(root.rglob("*.py")):
            if not {"tests", "migrations"} & set(path.parts) and not path.name.startswith("test"):
                yield path


def _lines(path: Path) -> list[int]:
    try:
        text = path.read_text(encoding="utf-8")
        return outside_atomic(text) if "OutboxEvent" in text else []
    except (OSError, ValueError, SyntaxError):
        # Python or a linter reports a broken source file better than this check.
        return []

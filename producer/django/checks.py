"""A project -> what `manage.py check` says of its outbox.

Edge: the project's settings and the sources of its own apps; with `--database`, Postgres.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core import checks
from django.db import connections, router
from outhaul.django.conf import publication, target
from outhaul.django.models import OutboxEvent
from outhaul.django.outside_atomic import PROMISE, outside_atomic
from outhaul.errors import EventError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PUBLISHED = "SELECT count(*) FROM pg_publication_tables WHERE pubname = %s AND schemaname = %s AND tablename = %s"


@checks.register(checks.Tags.models)
def check_settings(**_options: Any) -> list[checks.CheckMessage]:
    """Names must do, and the database must be Postgres."""
    try:
        target()
    except EventError as error:
        return [checks.Error(f"OUTHAUL_TABLE or OUTHAUL_ENVIRONMENT: {error}", id="outhaul.E001")]
    connection = connections[router.db_for_write(OutboxEvent)]
    if connection.vendor != "postgresql":
        what = f"the outbox must be in Postgres, and database {connection.alias!r} is {connection.vendor}"
        return [checks.Error(what, hint="Use django.db.backends.postgresql, or a router.", id="outhaul.E002")]
    return []


@checks.register(checks.Tags.models)
def check_transactions(**_options: Any) -> list[checks.CheckMessage]:
    """An event without a transaction around it and its business change would stand alone, so `emit` refuses it."""
    if connections[router.db_for_write(OutboxEvent)].settings_dict.get("ATOMIC_REQUESTS"):
        return []
    return [
        checks.Warning(
            f"{path}:{line} emits an event, and no atomic() is to be seen around it",
            hint="Put `with transaction.atomic():` around it and the business change, or end the line with "
            f"`# {PROMISE}`.",
            id="outhaul.W001",
        )
        for path in _sources()
        for line in _lines(path)
    ]


@checks.register(checks.Tags.database)
def check_publication(databases: Sequence[str] | None = None, **_options: Any) -> list[checks.CheckMessage]:
    """What is not published is not captured."""
    alias = router.db_for_write(OutboxEvent)
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    schema, _, name = target().table.rpartition(".")
    with connections[alias].cursor() as cursor:
        cursor.execute(_PUBLISHED, [publication(), schema or "public", name])
        found = cursor.fetchone()
    if found and found[0]:
        return []
    what = f"publication {publication()!r} does not hold {target().table}: its events are not captured"
    return [checks.Warning(what, hint="Run `manage.py migrate outhaul`, or `outhaul setup`.", id="outhaul.W002")]


def _sources() -> Iterator[Path]:
    """Name the modules of the project's own apps; tests may write as they like."""
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
        # Whatever is wrong with it, others say so better.
        return []

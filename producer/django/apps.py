"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """`outhaul.django` in INSTALLED_APPS; `outhaul` in migrations and in the admin."""

    name = "outhaul.django"
    label = "outhaul"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register what `manage.py check` looks at."""
        from outhaul.django import checks  # noqa: F401, PLC0415 - models must be there first

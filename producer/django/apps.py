"""`outhaul.django` in INSTALLED_APPS -> the app's names and its system checks.

Edge: registers the checks when Django starts.

Source: https://docs.djangoproject.com/en/5.2/ref/applications/
"""

from __future__ import annotations

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """The app. Its label in migrations and in the admin is `outhaul`."""

    name = "outhaul.django"
    label = "outhaul"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from outhaul.django import checks  # noqa: F401, PLC0415 - needs the models, which Django has now loaded

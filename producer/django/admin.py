"""Events of the outbox -> read-only pages of the admin, which show for each event whether ClickHouse has stored it.

Edge: the database, and ClickHouse once for each page.

Source: https://docs.djangoproject.com/en/5.2/ref/contrib/admin/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList

from outhaul.django.models import OutboxEvent
from outhaul.django.stored_ids import stored_ids

if TYPE_CHECKING:
    from django.http import HttpRequest

_MARK = "outhaul_is_stored"


class _WithStored(ChangeList):
    """A page of events, each marked as stored or not; one query to ClickHouse serves the page."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        events = list(self.result_list)
        stored = stored_ids(event.pk for event in events)
        for event in events:
            setattr(event, _MARK, None if stored is None else event.pk in stored)
        self.result_list = events


@admin.register(OutboxEvent)
class OutboxEventAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # generic only in the stubs
    """Pages for events. They are read-only: use cases write events, and a change would not be captured."""

    list_display = ("id", "event_type", "environment", "event_date_time", "event_key", "is_stored")
    list_filter = ("environment",)
    search_fields = ("event_type", "event_key")
    show_full_result_count = False

    @admin.display(description="stored in ClickHouse?", boolean=True)
    def is_stored(self, event: OutboxEvent) -> bool | None:
        """Return whether ClickHouse has stored the event; None if that is unknown."""
        if not hasattr(event, _MARK):
            stored = stored_ids([event.pk])
            return None if stored is None else event.pk in stored
        known: bool | None = getattr(event, _MARK)
        return known

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        """Return the page that queries ClickHouse once for all its events."""
        return _WithStored

    def get_readonly_fields(self, request: HttpRequest, obj: OutboxEvent | None = None) -> tuple[str, ...]:
        """Return all fields."""
        return (*(field.name for field in OutboxEvent._meta.fields), "is_stored")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Forbid it to every user."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: OutboxEvent | None = None) -> bool:
        """Forbid it to every user."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: OutboxEvent | None = None) -> bool:
        """Forbid it to every user: `outhaul prune` deletes events that ClickHouse has stored."""
        return False

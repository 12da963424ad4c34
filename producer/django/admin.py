"""Events in the admin: to look at, not to change, with what ClickHouse says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from outhaul.django.models import OutboxEvent
from outhaul.django.stored import stored_ids

if TYPE_CHECKING:
    from django.http import HttpRequest

_MARK = "outhaul_is_stored"


class _WithStored(ChangeList):
    """A page of events, each marked with whether it is stored: one question for all of them."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        events = list(self.result_list)
        stored = stored_ids(event.pk for event in events)
        for event in events:
            setattr(event, _MARK, None if stored is None else event.pk in stored)
        self.result_list = events


@admin.register(OutboxEvent)
class OutboxEventAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # at run time it has none
    """Events are written by use cases and captured from the log, so nobody writes them here."""

    list_display = ("id", "event_type", "environment", "event_date_time", "event_key", "is_stored")
    list_filter = ("environment",)
    search_fields = ("event_type", "event_key")
    show_full_result_count = False

    @admin.display(description="stored in ClickHouse?", boolean=True)
    def is_stored(self, event: OutboxEvent) -> bool | None:
        """Tell whether ClickHouse holds the event; None is unknown."""
        if not hasattr(event, _MARK):
            stored = stored_ids([event.pk])
            return None if stored is None else event.pk in stored
        known: bool | None = getattr(event, _MARK)
        return known

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        """Return the page that asks ClickHouse once."""
        return _WithStored

    def get_readonly_fields(self, request: HttpRequest, obj: OutboxEvent | None = None) -> tuple[str, ...]:
        """Return all fields."""
        return (*(field.name for field in OutboxEvent._meta.fields), "is_stored")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: OutboxEvent | None = None) -> bool:
        """Nobody may."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: OutboxEvent | None = None) -> bool:
        """Nobody may: `outhaul prune` deletes what is proven stored."""
        return False

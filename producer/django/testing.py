"""A block of a test -> a check of the events that it emits: `with self.assertEmits("user_created", context={…}):`.

Edge: Django's connection, in the test's transaction.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from outhaul.django.models import OutboxEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from unittest import TestCase

    _Base = TestCase
else:
    _Base = object


class AssertEmits(_Base):
    """Mixin for Django's TestCase and TransactionTestCase."""

    @contextmanager
    def assertEmits(  # noqa: N802 - as unittest spells it
        self, *types: str, context: Mapping[str, Any] | None = None, using: str | None = None
    ) -> Iterator[list[OutboxEvent]]:
        """Fail unless the block emits exactly one event of each of these types, in this order.

        Args:
            types: the types of the events; without types, the block must emit nothing.
            context: members that the context of each event must have; it may have more.
            using: the database's alias; None asks the router.

        Yields:
            A list. It is filled with the events when the block has ended.
        """
        events = OutboxEvent.objects.using(using) if using else OutboxEvent.objects.all()
        before = events.order_by("-pk").values_list("pk", flat=True).first() or 0
        found: list[OutboxEvent] = []
        yield found
        found += events.filter(pk__gt=before).order_by("pk")
        self.assertEqual([event.event_type for event in found], list(types), "these events were emitted")
        for event in found:
            missing = {name: value for name, value in (context or {}).items() if event.event_context.get(name) != value}
            self.assertEqual(missing, {}, f"{event} has the context {event.event_context}")

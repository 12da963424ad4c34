"""For tests of use cases: `with self.assertEmits("user_created", context={…}):`.

Edge: Django's connection, in the test's own transaction.
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
    """Mixed into a TestCase or TransactionTestCase of Django's."""

    @contextmanager
    def assertEmits(  # noqa: N802 - as unittest spells it
        self, *types: str, context: Mapping[str, Any] | None = None, using: str | None = None
    ) -> Iterator[list[OutboxEvent]]:
        """Fail unless the block leaves events of just these types, in this order; none named is no event.

        Args:
            types: of the events.
            context: what each of them must hold, among other things.
            using: the database; None is the router's.

        Yields:
            A list that has the events when the block is over.
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

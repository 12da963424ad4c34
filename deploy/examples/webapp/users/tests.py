"""Tests of the use case and its endpoint, as an example for apps that use outhaul."""

import json

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import transaction
from django.test import Client, TestCase

from outhaul.django.models import OutboxEvent
from outhaul.django.testing import AssertEmits
from users.models import User
from users.use_cases import create_user


class CreateUser(AssertEmits, TestCase):
    """Tests of `create_user` and its endpoint."""

    def test_a_new_user_emits_one_event(self) -> None:
        """One user, one event."""
        with self.assertEmits("user_created", context={"email": "ada@example.com"}) as events:
            user = create_user("Ada", "ada@example.com")
        self.assertEqual(events[0].event_context, {"id": user.pk, "name": "Ada", "email": "ada@example.com"})
        self.assertEqual(events[0].environment, settings.OUTHAUL_ENVIRONMENT)

    def test_an_address_that_is_taken_leaves_no_event(self) -> None:
        """No second user, no event."""
        create_user("Ada", "ada@example.com")
        with self.assertEmits(), self.assertRaises(ValidationError):
            create_user("Eve", "ada@example.com")
        self.assertEqual(User.objects.count(), 1)

    def test_a_rollback_also_removes_the_event(self) -> None:
        """A later error rolls back user and event."""

        class LaterError(Exception):
            pass

        with self.assertEmits(), self.assertRaises(LaterError), transaction.atomic():
            create_user("Ada", "ada@example.com")
            raise LaterError

    def test_the_endpoint_returns_the_outcome_as_its_status(self) -> None:
        """201 for a new user, 409 for a taken address, 400 for an invalid request."""
        body = json.dumps({"name": "Ada", "email": "ada@example.com"})
        codes = [
            self.client.post("/users", text, content_type="application/json").status_code
            for text in (body, body, "{}", '{"name": "", "email": "no address"}')
        ]
        self.assertEqual(codes, [201, 409, 400, 400])

    def test_the_admin_shows_events_and_forbids_changes(self) -> None:
        """The admin is read-only."""
        create_user("Ada", "ada@example.com")
        event = OutboxEvent.objects.get()
        client = Client()
        client.force_login(get_user_model().objects.create_superuser("root"))
        page = client.get("/admin/outhaul/outboxevent/")
        self.assertContains(page, "user_created")
        self.assertContains(page, "Stored in ClickHouse?")
        self.assertContains(client.get(f"/admin/outhaul/outboxevent/{event.pk}/change/"), "ada@example.com")
        self.assertEqual(client.get("/admin/outhaul/outboxevent/add/").status_code, 403)
        self.assertEqual(client.post(f"/admin/outhaul/outboxevent/{event.pk}/delete/").status_code, 403)

"""Name and e-mail address -> a user and its event, in one transaction. Edge: Postgres."""

from django.db import transaction

from outhaul.django.models import OutboxEvent
from users.models import User


@transaction.atomic
def create_user(name: str, email: str) -> User:
    """Create a user and its event in one transaction.

    Raises:
        ValidationError: the name or address is invalid, or another user has the address.
        IntegrityError: a concurrent request has just taken the address.
    """
    user = User(name=name, email=email)
    user.full_clean()
    user.save()
    OutboxEvent.emit("user_created", {"id": user.pk, "name": name, "email": email})
    return user

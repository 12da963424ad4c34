"""What the app does."""

from django.db import transaction

from outhaul.django.models import OutboxEvent
from users.models import User


@transaction.atomic
def create_user(name: str, email: str) -> User:
    """Create a user and say so; both or neither.

    Raises:
        ValidationError: name or address will not do, or the address is somebody else's.
        IntegrityError: it became somebody else's at this very moment.
    """
    user = User(name=name, email=email)
    user.full_clean()
    user.save()
    OutboxEvent.emit("user_created", {"id": user.pk, "name": name, "email": email})
    return user

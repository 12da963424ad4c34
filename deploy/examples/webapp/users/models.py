"""What the app keeps."""

from django.db import models


class User(models.Model):
    """Somebody with an e-mail address that nobody else has."""

    name = models.CharField(max_length=200)
    email = models.EmailField(unique=True)

    def __str__(self) -> str:
        """Return the name."""
        return self.name

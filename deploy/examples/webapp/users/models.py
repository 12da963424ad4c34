"""The models of the app. Edge: Postgres."""

from django.db import models


class User(models.Model):
    """A user with a unique e-mail address."""

    name = models.CharField(max_length=200)
    email = models.EmailField(unique=True)

    def __str__(self) -> str:
        """Return the name."""
        return self.name

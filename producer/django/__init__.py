"""A Django project -> its outbox: add `outhaul.django` to INSTALLED_APPS, call `OutboxEvent.emit(…)` in `atomic()`."""

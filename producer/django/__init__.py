"""The outbox as a Django app: add `outhaul.django` to INSTALLED_APPS, then `OutboxEvent.emit(…)` inside `atomic()`."""

"""The outbox as a Django app: add `producer.django` to INSTALLED_APPS, then `OutboxEvent.emit(…)` inside `atomic()`."""

"""A Django project -> its outbox: add `outhaul.django` to INSTALLED_APPS, call `OutboxEvent.emit(…)` in `atomic()`."""

try:
    import django as _django  # noqa: F401 - so that the error below is the first one
except ImportError as error:
    raise ImportError(f"outhaul.django needs Django: pip install 'outhaul[django]' ({error})") from error

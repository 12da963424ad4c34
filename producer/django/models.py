"""The outbox as a model: `OutboxEvent.emit(…)` in a use case's `atomic()`, or rows as of any other model.

Edge: Django's connection. Whichever way an event is written, it is checked before the database is asked, and is written
in the transaction of the business change or not at all.

Source: https://docs.djangoproject.com/en/5.2/topics/db/transactions/
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from django.db import connections, models, router
from django.db.models.functions import Now
from outhaul.context import context_json
from outhaul.django.conf import db_table, target
from outhaul.errors import EventError
from outhaul.event import Event
from outhaul.statement import writing
from outhaul.trace import running_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from django.db.backends.base.base import BaseDatabaseWrapper
    from outhaul.statement import Shape

_known: WeakKeyDictionary[Any, dict[str, Shape]] = WeakKeyDictionary()


class ContextEncoder(json.JSONEncoder):
    """Writes a context as `Event` does: aware times, UUIDs, Decimals to the digit, dataclasses, pydantic models."""

    def encode(self, o: Any) -> str:
        """Return the JSON text of a whole context.

        Raises:
            EventError: it holds what Postgres or ClickHouse would not take.
        """
        return context_json(o)


class EventQuerySet(models.QuerySet["OutboxEvent"]):
    """Queries for events, and the making of many."""

    def bulk_create(self, objs: Iterable[OutboxEvent], *args: Any, **options: Any) -> list[OutboxEvent]:
        """Write events as Django does it; `ignore_conflicts=True` passes over keys that are there already.

        Raises:
            EventError: one of them will not do, or no transaction is open; none is written.
        """
        events = list(objs)
        queries: Any = self
        queries._for_write = True  # as Django's own does, a moment later
        check_transaction(connections[self.db])
        for event in events:
            event.check_event()
        return super().bulk_create(events, *args, **options)


class OutboxEvent(models.Model):
    """An event. Once written it is captured from the log: neither a change of the row nor its deletion is."""

    event_type: models.CharField[str, str] = models.CharField(max_length=255)
    event_date_time: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(
        null=True, blank=True, db_default=Now()
    )
    environment: models.CharField[str, str] = models.CharField(max_length=255)
    event_context = models.JSONField(encoder=ContextEncoder)
    metadata_version: models.BigIntegerField[int | None, int | None] = models.BigIntegerField(
        null=True, blank=True, db_default=1
    )
    event_key: models.TextField[str | None, str | None] = models.TextField(null=True, blank=True, unique=True)

    objects = EventQuerySet.as_manager()

    class Meta:
        """The table is the one that any other app writes to."""

        db_table = db_table()
        verbose_name = "event"
        ordering = ("-id",)

    def __str__(self) -> str:
        """Return what happened, and its number."""
        return f"{self.event_type} {self.pk}"

    def save(self, *args: Any, **options: Any) -> None:
        """Write a new event.

        Raises:
            EventError: it will not do, no transaction is open, or it was written before: what happened has happened.
        """
        if not self._state.adding:
            raise EventError("an event that is written cannot be changed: write another one")
        check_transaction(connections[options.get("using") or router.db_for_write(type(self), instance=self)])
        self.check_event()
        super().save(*args, **options)

    @classmethod
    def emit(
        cls,
        type: str,  # noqa: A002 - the field's own name
        context: object,
        *,
        environment: str | None = None,
        at: datetime | None = None,
        version: int = 1,
        key: str | None = None,
        using: str | None = None,
    ) -> bool:
        """Write one event in the transaction that is open; return False when its key is there already.

        Args:
            type: what happened, 1 to 255 characters.
            context: a mapping, a dataclass or a pydantic model.
            environment: None is the project's OUTHAUL_ENVIRONMENT.
            at: when it happened, aware; None is the transaction's time.
            version: of the context's form.
            key: makes a second event with the same key no event.
            using: the database; None is the router's.

        Raises:
            EventError: the event will not do, or no `atomic()` is open. Nothing was sent, the transaction goes on.
            django.db.DatabaseError: Postgres refuses it.
        """
        return cls.emit_many([Event(type, context, environment=environment, at=at, version=version, key=key)], using)[0]

    @classmethod
    def emit_many(cls, events: Iterable[Event], using: str | None = None) -> list[bool]:
        """Write events in few statements; return for each whether it is new.

        Raises:
            EventError: as `emit`; then none of them is written.
            django.db.DatabaseError: Postgres refuses one of them.
        """
        connection = connections[using or router.db_for_write(cls)]
        check_transaction(connection)
        connection.ensure_connection()
        known = _known.setdefault(connection.connection, {})
        work = writing(events, target(), known, running_traceparent())
        with connection.cursor() as cursor:
            try:
                query = next(work)
                while True:
                    cursor.execute(query.sql, query.parameters)
                    query = work.send(cursor.fetchall() if query.returns else [])
            except StopIteration as end:
                return list(end.value)

    def check_event(self) -> None:
        """Check the parts as `Event` does; the environment may be the project's.

        Raises:
            EventError: one of them will not do.
        """
        self.environment = self.environment or target().environment or ""
        at, version = self.event_date_time, self.metadata_version
        Event(
            self.event_type,
            self.event_context,
            environment=self.environment,
            at=None if hasattr(at, "resolve_expression") else at,
            version=1 if version is None or hasattr(version, "resolve_expression") else version,
            key=self.event_key,
        )


def check_transaction(connection: BaseDatabaseWrapper) -> None:
    """Refuse a connection without a transaction of the app's own.

    The one that Django's TestCase wraps around each test does not count, so that a test finds what would go wrong.

    Raises:
        EventError: it is none of Postgres, or no transaction is open.
    """
    if connection.vendor != "postgresql":
        raise EventError(f"the outbox is a table of Postgres, and database {connection.alias!r} is {connection.vendor}")
    blocks: list[Any] = getattr(connection, "atomic_blocks", [])
    of_the_test = [block for block in blocks if getattr(block, "_from_testcase", False)]
    if len(of_the_test) == len(blocks) and (blocks or connection.get_autocommit()):
        raise EventError(
            "emit needs the transaction of the business change: use `with transaction.atomic():` around both"
        )

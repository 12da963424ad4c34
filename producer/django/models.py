"""Events of a Django app -> rows of the outbox, in the transaction of the business change.

Edge: Django's connection. Call `OutboxEvent.emit(…)` in a use case's `atomic()`, or save rows as of any other model.
Both check the event before any statement is sent, and both raise `EventError` if no transaction is open.

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
from outhaul.statement import write_events
from outhaul.traceparent import running_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from django.db.backends.base.base import BaseDatabaseWrapper

    from outhaul.statement import Shape

# By driver connection.
_shapes: WeakKeyDictionary[Any, dict[str, Shape]] = WeakKeyDictionary()


class ContextEncoder(json.JSONEncoder):
    """Writes a context as `Event` does: aware times, UUIDs, exact Decimals, dataclasses, pydantic models."""

    def encode(self, o: Any) -> str:
        """Return the JSON text of a whole context.

        Raises:
            EventError: Postgres or ClickHouse would not accept a value in it.
        """
        return context_json(o)


class EventQuerySet(models.QuerySet["OutboxEvent"]):
    """A query set of events, with a `bulk_create` that checks them."""

    def bulk_create(self, objs: Iterable[OutboxEvent], *args: Any, **options: Any) -> list[OutboxEvent]:
        """Write events as Django does; `ignore_conflicts=True` ignores events whose key already exists.

        Raises:
            EventError: an event is invalid, or no transaction is open. No event was written.
        """
        events = list(objs)
        queries: Any = self
        queries._for_write = True  # `self.db` must be the database for writes; Django's bulk_create sets the same
        check_transaction(connections[self.db])
        for event in events:
            event.check_event()
        return super().bulk_create(events, *args, **options)


class OutboxEvent(models.Model):
    """An event. The insert of its row is captured; later updates and deletes are not."""

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
        """The table of OUTHAUL_TABLE, which apps without Django may write to as well."""

        db_table = db_table()
        verbose_name = "event"
        ordering = ("-id",)

    def __str__(self) -> str:
        """Return the event's type and id."""
        return f"{self.event_type} {self.pk}"

    def save(self, *args: Any, **options: Any) -> None:
        """Write a new event.

        Raises:
            EventError: it is invalid, no transaction is open, or the event was saved before.
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
        """Write one event in the current transaction; return False if its key already exists.

        Args:
            type: what happened, 1 to 255 characters.
            context: a mapping, a dataclass or a pydantic model.
            environment: 1 to 255 characters; None uses the project's OUTHAUL_ENVIRONMENT.
            at: when it happened, timezone-aware; None uses the start time of the transaction.
            version: the version of the context's format.
            key: at most 255 characters; duplicates of a key are ignored. None means no key.
            using: the database's alias; None asks the router.

        Raises:
            EventError: the event is invalid, or no `atomic()` is open. Nothing was written; the transaction stays
                usable.
            django.db.DatabaseError: Postgres refused the statement.
        """
        return cls.emit_many([Event(type, context, environment=environment, at=at, version=version, key=key)], using)[0]

    @classmethod
    def emit_many(cls, events: Iterable[Event], using: str | None = None) -> list[bool]:
        """Write events in few statements; return for each event whether it is new.

        An event is new if it has no key, or if its key is neither in the table nor in an earlier event of the call.

        Raises:
            EventError: as for `emit`; then no event was written.
            django.db.DatabaseError: Postgres refused a statement.
        """
        connection = connections[using or router.db_for_write(cls)]
        check_transaction(connection)
        connection.ensure_connection()
        shapes = _shapes.setdefault(connection.connection, {})
        queries = write_events(events, target(), shapes, running_traceparent())
        with connection.cursor() as cursor:
            try:
                query = next(queries)
                while True:
                    cursor.execute(query.sql, query.parameters)
                    query = queries.send(cursor.fetchall() if query.returns else [])
            except StopIteration as end:
                return list(end.value)

    def check_event(self) -> None:
        """Check the fields as `Event` does; an empty environment is set to the project's first.

        Raises:
            EventError: one of them is invalid.
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
    """Check that the connection is to Postgres and that the app has opened a transaction.

    The transaction that Django's TestCase opens around each test does not count: a test fails where production would.

    Raises:
        EventError: the database is not Postgres, or no transaction is open.
    """
    if connection.vendor != "postgresql":
        raise EventError(f"the outbox must be in Postgres, but database {connection.alias!r} is {connection.vendor}")
    blocks: list[Any] = getattr(connection, "atomic_blocks", [])
    test_blocks = [block for block in blocks if getattr(block, "_from_testcase", False)]
    if len(test_blocks) == len(blocks) and (blocks or connection.get_autocommit()):
        raise EventError(
            "emit needs the transaction of the business change: use `with transaction.atomic():` around both"
        )

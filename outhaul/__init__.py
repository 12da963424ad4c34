"""What apps import to write events: `from producer import Event, emit`; for SQLAlchemy see `producer.sqlalchemy`."""

from producer.event import Event
from producer.outbox import Outbox, emit, emit_async, emit_many, emit_many_async
from producer.refusal import EventError

__all__ = ["Event", "EventError", "Outbox", "emit", "emit_async", "emit_many", "emit_many_async"]

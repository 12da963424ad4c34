"""What apps import to write events: `from producer import Event, emit`."""

from producer.event import Event, EventError
from producer.outbox import emit, emit_many

__all__ = ["Event", "EventError", "emit", "emit_many"]

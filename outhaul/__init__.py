"""Events for a transactional outbox: `from outhaul import Event, emit`.

`outhaul.sqlalchemy` and `outhaul.django` write the same events through these libraries. `emit` and its like need
psycopg, which is imported when one of them is first used: an app with another driver does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outhaul.errors import EventError
from outhaul.event import Event

if TYPE_CHECKING:
    from outhaul.outbox import Outbox, emit, emit_async, emit_many, emit_many_async

__all__ = ["Event", "EventError", "Outbox", "emit", "emit_async", "emit_many", "emit_many_async"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'outhaul' has no attribute {name!r}")
    try:
        from outhaul import outbox  # noqa: PLC0415 - see above
    except ImportError as error:
        raise ImportError(f"outhaul.{name} needs psycopg: pip install 'psycopg[binary]' ({error})") from error
    return getattr(outbox, name)

"""Current batch -> its source, epoch, number, token and task on every log line and error report, until the next batch.

Edge: context variables. Each thread has its own; the thread of a stage gets a copy of its starter's.

Source: https://www.structlog.org/en/stable/contextvars.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from structlog.contextvars import bind_contextvars, get_contextvars, unbind_contextvars

if TYPE_CHECKING:
    from typing import Any

    from outhaul.sink.batch import Message

_OF_BATCH = ("batch", "token", "task", "first", "last")


def bind(message: Message) -> None:
    """Set the batch that this thread works on from now on."""
    bind_contextvars(
        source=message.source,
        epoch=message.epoch,
        batch=message.sequence,
        token=message.token,
        task=message.task_id,
        first=message.first,
        last=message.last,
    )


def begin(**names: object) -> None:
    """Set the names for all lines of this process or session, and unset the batch."""
    end()
    bind_contextvars(**names)


def known() -> dict[str, Any]:
    """Return the names that are set in this thread."""
    return get_contextvars()


def end() -> None:
    """Unset the batch."""
    unbind_contextvars("epoch", *_OF_BATCH)

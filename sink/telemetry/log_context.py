"""Batch at hand -> its source, epoch, number, token and task on every log line and error report until the next one.

Edge: context variables, which each thread has of its own; a stage's thread gets a copy of what its starter had.

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
    """Name the batch that this thread works on from here on."""
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
    """Name what all lines of this process or session have in common, and no batch."""
    end()
    bind_contextvars(**names)


def known() -> dict[str, Any]:
    """Return what this thread is known to work on."""
    return get_contextvars()


def end() -> None:
    """Name no batch any more."""
    unbind_contextvars("epoch", *_OF_BATCH)

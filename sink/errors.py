"""What can go wrong -> what to do about it: wait and repeat, set aside, or stop.

Pure. Every exception that crosses a stage is one of these three kinds; drivers' exceptions are translated by the edge
that met them, by code and not by text. Whatever nobody classified is fatal: stopping keeps the slot, and so the
events.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes of `outhaul`, one for each thing an operator would do about it."""

    FINE = 0
    NOT_FINE = 1
    USAGE = 2
    SETTINGS = 3
    POSTGRES_UNREACHABLE = 10
    POSTGRES_LOGIN = 11
    WAL_LEVEL = 12
    ROLE = 13
    TABLE_MISSING = 14
    PUBLICATION_MISSING = 15
    SLOT_MISSING = 16
    SLOT_HELD = 17
    SLOT_UNUSABLE = 18
    OTHER_HISTORY = 19
    CLICKHOUSE_UNREACHABLE = 20
    CLICKHOUSE_LOGIN = 21
    CLICKHOUSE_TABLE = 22
    CLICKHOUSE_REFUSED = 23
    REDIS_UNREACHABLE = 30
    REDIS_LOGIN = 31
    REDIS_FULL = 32
    REDIS_READ_ONLY = 33
    STREAM_BROKEN = 40


class PipelineError(Exception):
    """Base of all errors of the pipeline; pickles whole, so that Celery can carry it."""

    def __init__(
        self, message: str, *, code: int | None = None, todo: str = "", exit_code: Exit = Exit.NOT_FINE
    ) -> None:
        """Keep the parts.

        Args:
            message: what happened, one line.
            code: the server's own error code, where there is one.
            todo: what the operator can do, one sentence, ends the printed message.
            exit_code: what a process that stops on this error exits with.
        """
        super().__init__(message)
        self.message = message
        self.code = code
        self.todo = todo
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.code, self.todo, int(self.exit_code))

    def __str__(self) -> str:
        return f"{self.message}. {self.todo}" if self.todo else self.message


def _rebuild(kind: type[PipelineError], message: str, code: int | None, todo: str, exit_code: int) -> PipelineError:
    return kind(message, code=code, todo=todo, exit_code=Exit(exit_code))


class TransientError(PipelineError):
    """Wait, then do the same thing again with the same batch and the same token."""


class PoisonError(PipelineError):
    """These rows cannot be stored as they are: set them aside in the dead letters."""


class FatalError(PipelineError):
    """Stop and keep the slot; `todo` says what goes on from here."""


class ForeignMessageError(FatalError):
    """A message that no reader of this pipeline has sent; it is dropped, and no reader is told of it."""


class FrameError(FatalError):
    """The bytes from Postgres are not what the protocol says; nothing was guessed."""

    def __init__(self, message: str, **parts: Any) -> None:
        """Fill in the exit code that all broken streams share."""
        parts.setdefault("exit_code", Exit.STREAM_BROKEN)
        super().__init__(message, **parts)

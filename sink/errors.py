"""A failure -> what to do about it: wait and repeat, set the rows aside, or stop.

Pure. Every exception that leaves a stage is of one of these three kinds. The edge that catches a driver's exception
translates it, by its error code and not by its text. An unclassified error is fatal: a stopped reader keeps the slot,
and so Postgres keeps the events.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes of `outhaul`: one for each action that an operator can take."""

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
    """Base class of all errors of the pipeline; pickles with all its parts, so Celery can send it between processes."""

    def __init__(
        self, message: str, *, code: int | None = None, todo: str = "", exit_code: Exit = Exit.NOT_FINE
    ) -> None:
        """Keep the parts.

        Args:
            message: what happened, one line.
            code: the server's own error code, if it sent one.
            todo: what the operator can do: one sentence, printed after the message.
            exit_code: exit code of a process that stops on this error.
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
    """Wait, then repeat the same operation with the same batch and the same token."""


class PoisonError(PipelineError):
    """These rows cannot be stored as they are: set them aside in the dead letters."""


class FatalError(PipelineError):
    """Stop and keep the slot; `todo` says what the operator can do next."""


class ForeignMessageError(FatalError):
    """A message that no reader of this pipeline has sent; the worker drops it, and reports it to no reader."""


class FrameError(FatalError):
    """The bytes from Postgres do not follow the protocol; the decoder does not guess values."""

    def __init__(self, message: str, **parts: Any) -> None:
        """Set the exit code that all broken streams share."""
        parts.setdefault("exit_code", Exit.STREAM_BROKEN)
        super().__init__(message, **parts)
